// What ioredis sees of the server at a port, as one line of JSON.

import { createHash } from 'node:crypto';
import { Redis } from 'ioredis';
import { BINARY, SCRIPT, fail, field, refusal, run, until } from './steps.js';

const [port, protocol] = process.argv.slice(2);
const connect = () =>
  new Redis(Number(port), protocol === 'default' ? {} : { protocol: Number(protocol) }).on('error', fail);
const client = connect();
const connections = [client];

function another() {
  connections.push(connect());
  return connections.at(-1);
}

async function handshake(saw) {
  saw.ping = await client.ping();
  saw.resp = field(await client.client('INFO'), 'resp');
  await client.flushall();
}

async function values(saw) {
  await client.set('binary', BINARY);
  saw.binary = (await client.getBuffer('binary')).toString('hex');
  await client.set('large', 'x'.repeat(100_000), 'EX', 3600);
  saw.large = (await client.get('large')).length;
  saw.expires = (await client.ttl('large')) > 3540;
  saw.missing = await client.get('missing');
  saw.added = await client.hset('hash', { a: 1, b: 2 });
  saw.hash = await client.hgetall('hash');
  saw.scores = await client.zadd('zset', 1.5, 'm', 2, 'n');
  saw.zset = await client.zrange('zset', 0, -1, 'WITHSCORES');
  saw.wrong_type = await refusal(client.incr('hash'));
}

async function pipeline(saw) {
  const pipe = client.pipeline();
  for (let i = 0; i < 1000; i++) pipe.incr('counter');
  const replies = await pipe.exec();
  saw.pipeline = [replies.length, replies.reduce((sum, [, reply]) => sum + reply, 0)];
}

async function transaction(saw) {
  saw.transaction = await client.multi().rpush('list', 'a', 'b').incrby('counter', 5).get('counter').exec();
}

async function conflict(saw) {
  const own = another();
  saw.conflict = [];
  for (const other of ['theirs', null]) {
    await own.watch('counter');
    if (other) await client.set('counter', other);
    saw.conflict.push(await own.multi().set('counter', 'mine').exec(), await client.get('counter'));
  }
}

async function blocked(command) {
  await until(async () => (await client.client('LIST')).includes(`cmd=${command}`));
}

async function blocking(saw) {
  const popper = another();
  const popped = popper.blpop('empty', 'queue', 10);
  await blocked('blpop');
  await client.rpush('queue', 'job');
  saw.blpop = await popped;
  saw.blpop_nothing = await popper.blpop('queue', 0.1);
}

async function messages(saw) {
  const channels = another();
  const patterns = another();
  const got = [];
  const matched = [];
  channels.on('message', (channel, text) => got.push(`${channel}/${text}`));
  patterns.on('pmessage', (pattern, channel, text) => matched.push(`${pattern}/${channel}/${text}`));
  saw.subscriptions = [await channels.subscribe('news'), await patterns.psubscribe('new?')];
  saw.receivers = 0;
  for (let i = 0; i < 100; i++) saw.receivers += await client.publish('news', String(i));
  await until(() => got.length >= 100 && matched.length >= 100);
  saw.messages = got.join(' ');
  saw.matched = matched.join(' ');
  saw.unsubscribed = await channels.unsubscribe();
  saw.usable_again = await channels.get('missing');
}

async function script(saw) {
  await client.script('FLUSH');
  const digest = createHash('sha1').update(SCRIPT).digest('hex');
  saw.noscript = await refusal(client.evalsha(digest, 1, 'scripted', 'x'));
  client.defineCommand('append_and_list', { numberOfKeys: 1, lua: SCRIPT });
  saw.script = [await client.append_and_list('scripted', 'one'), await client.evalsha(digest, 1, 'scripted', 'two')];
}

async function scan(saw) {
  const pipe = client.pipeline();
  for (let i = 0; i < 1000; i++) pipe.set(`scanned:${i}`, i);
  await pipe.exec();
  const found = new Set();
  for await (const keys of client.scanStream({ match: 'scanned:*', count: 100 })) keys.forEach((key) => found.add(key));
  saw.scanned = found.size;
}

async function stream(saw) {
  await client.xgroup('CREATE', 'stream', 'group', '$', 'MKSTREAM');
  const reading = another().xreadgroup(
    'GROUP', 'group', 'consumer', 'COUNT', 10, 'BLOCK', 10_000, 'STREAMS', 'stream', '>',
  );
  await blocked('xreadgroup');
  await client.xadd('stream', '7-1', 'field', 'value');
  saw.stream = await reading;
  saw.pending = [await client.xpending('stream', 'group'), await client.xack('stream', 'group', '7-1')];
  saw.pending.push(await client.xpending('stream', 'group'));
}

await run({ client: 'ioredis' }, [
  handshake, values, pipeline, transaction, conflict, blocking, messages, script, scan, stream,
]);
await Promise.all(connections.map((connection) => connection.quit()));
