// What both JavaScript programs do alike.

/** Run the steps in order, print what they saw as one line of JSON. */
export async function run(saw, steps) {
  const late = setTimeout(() => {
    console.error('30 seconds were not enough; seen until now:', Object.keys(saw));
    process.exit(1);
  }, 30_000);
  for (const step of steps) await step(saw);
  clearTimeout(late);
  console.log(JSON.stringify(saw));
}

/** A connection broke: the client would try again for ever. */
export function fail(error) {
  console.error(error);
  process.exit(1);
}

/** Poll until something is so; `run` has the deadline. */
export async function until(is) {
  while (!(await is())) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** What an operation is rejected with. */
export async function refusal(operation) {
  try {
    await operation;
  } catch (error) {
    return error.message;
  }
  throw new Error('it was not refused');
}

/** A field of CLIENT INFO. */
export function field(info, name) {
  return new RegExp(`(?:^| )${name}=(\\S*)`).exec(info)?.[1];
}

export const BINARY = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
export const SCRIPT = "redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('LRANGE', KEYS[1], 0, -1)";
