// What node-redis sees of the server at a port, as one line of JSON.

import { createHash } from 'node:crypto';
import { RESP_TYPES, WatchError, createClient } from 'redis';
import { BINARY, SCRIPT, fail, field, refusal, run, until } from './steps.js';

const [port, protocol] = process.argv.slice(2);
const options = { url: `redis://127.0.0.1:${port}`, ...(protocol === 'default' ? {} : { RESP: Number(protocol) }) };
const connections = [];

async function another() {
  const connection = createClient(options);
  connection.on('error', fail);
  connections.push(connection);
  return connection.connect();
}

const client = await another();

async function handshake(saw) {
  saw.ping = await client.ping();
  saw.resp = field(String(await client.sendCommand(['CLIENT', 'INFO'])), 'resp');
  await client.flushAll();
}

async function values(saw) {
  await client.set('binary', BINARY);
  saw.binary = (await client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer }).get('binary')).toString('hex');
  await client.set('large', 'x'.repeat(100_000), { EX: 3600 });
  saw.large = (await client.get('large')).length;
  saw.expires = (await client.ttl('large')) > 3540;
  saw.missing = await client.get('missing');
  saw.added = await client.hSet('hash', { a: '1', b: '2' });
  saw.hash = await client.hGetAll('hash');
  saw.scores = await client.zAdd('zset', [{ score: 1.5, value: 'm' }, { score: 2, value: 'n' }]);
  saw.zset = await client.zRangeWithScores('zset', 0, -1);
  saw.wrong_type = await refusal(client.incr('hash'));
}

async function pipeline(saw) {
  const replies = await Promise.all(Array.from({ length: 1000 }, () => client.incr('counter')));
  saw.pipeline = [replies.length, replies.reduce((sum, reply) => sum + reply, 0)];
}

async function transaction(saw) {
  saw.transaction = await client.multi().rPush('list', ['a', 'b']).incrBy('counter', 5).get('counter').exec();
}

async function conflict(saw) {
  const own = await another();
  saw.conflict = [];
  for (const other of ['theirs', null]) {
    await own.watch('counter');
    if (other) await client.set('counter', other);
    const mine = own.multi().set('counter', 'mine').exec();
    saw.conflict.push(await mine.catch((error) => (error instanceof WatchError ? 'conflict' : String(error))));
    saw.conflict.push(await client.get('counter'));
  }
}

async function blocked(command) {
  await until(async () => String(await client.sendCommand(['CLIENT', 'LIST'])).includes(`cmd=${command}`));
}

async function blocking(saw) {
  const popper = await another();
  const popped = popper.blPop(['empty', 'queue'], 10);
  await blocked('blpop');
  await client.rPush('queue', 'job');
  saw.blpop = await popped;
  saw.blpop_nothing = await popper.blPop('queue', 0.1);
}

async function messages(saw) {
  const subscriber = await another();
  const got = [];
  const matched = [];
  await subscriber.subscribe('news', (text, channel) => got.push(`${channel}/${text}`));
  await subscriber.pSubscribe('new?', (text, channel) => matched.push(`${channel}/${text}`));
  saw.receivers = 0;
  for (let i = 0; i < 100; i++) saw.receivers += await client.publish('news', String(i));
  await until(() => got.length >= 100 && matched.length >= 100);
  saw.messages = got.join(' ');
  saw.matched = matched.join(' ');
  await subscriber.unsubscribe();
  await subscriber.pUnsubscribe();
  saw.usable_again = await subscriber.get('missing');
}

async function script(saw) {
  await client.scriptFlush();
  const digest = createHash('sha1').update(SCRIPT).digest('hex');
  const call = (value) => client.evalSha(digest, { keys: ['scripted'], arguments: [value] });
  saw.noscript = await refusal(call('x'));
  saw.script = [await client.eval(SCRIPT, { keys: ['scripted'], arguments: ['one'] }), await call('two')];
}

async function scan(saw) {
  await Promise.all(Array.from({ length: 1000 }, (_, i) => client.set(`scanned:${i}`, String(i))));
  const found = new Set();
  for await (const keys of client.scanIterator({ MATCH: 'scanned:*', COUNT: 100 })) keys.forEach((key) => found.add(key));
  saw.scanned = found.size;
}

async function stream(saw) {
  await client.xGroupCreate('stream', 'group', '$', { MKSTREAM: true });
  const consumer = await another();
  const reading = consumer.xReadGroup('group', 'consumer', { key: 'stream', id: '>' }, { COUNT: 10, BLOCK: 10_000 });
  await blocked('xreadgroup');
  await client.xAdd('stream', '7-1', { field: 'value' });
  saw.stream = await reading;
  saw.pending = [await client.xPending('stream', 'group'), await client.xAck('stream', 'group', '7-1')];
  saw.pending.push(await client.xPending('stream', 'group'));
}

await run({ client: 'node-redis' }, [
  handshake, values, pipeline, transaction, conflict, blocking, messages, script, scan, stream,
]);
await Promise.all(connections.map((connection) => connection.close()));
