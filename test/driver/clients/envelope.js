// Reads an own entry from Redis as an application would, by src/core/cache/README.md alone.
//
//     node envelope.js <unix socket of Redis> <key> [key prefix]
//
// Prints {"payload", "valid", "tags", "key", "freshMs"} as JSON, or null when there is none.
'use strict';
const net = require('net');

const MASK = (1n << 128n) - 1n;
const PRIME = (1n << 88n) + 0x13bn;

function fnv128(...parts) {
  let state = 0x6c62272e07bb014262b821756295c58dn;
  for (const byte of Buffer.concat(parts)) state = ((state ^ BigInt(byte)) * PRIME) & MASK;
  const out = Buffer.alloc(16);
  out.writeBigUInt64BE(state >> 64n, 0);
  out.writeBigUInt64BE(state & ((1n << 64n) - 1n), 8);
  return out;
}

function number64(n) {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(BigInt(n));
  return out;
}

// The bucket of a name: FNV-1a with 64 bits over kind, colon and name, folded to 14 bits.
function bucketOf(kind, name) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.concat([Buffer.from(kind + ':'), name]))
    hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & ((1n << 64n) - 1n);
  return Number((hash ^ (hash >> 32n)) & 16383n);
}

function decode(bytes) {
  let at = 0;
  const take = (n) => {
    if (at + n > bytes.length) throw new Error('cut short');
    at += n;
    return bytes.subarray(at - n, at);
  };
  if (!take(4).equals(Buffer.from([0xff, 0x43, 0x58, 0x45])) || take(1)[0] !== 1 || take(1)[0] > 1) return null;
  const envelope = { namespace: take(16), incarnation: take(16), versions: take(16), audience: take(16) };
  envelope.madeAt = take(8).readBigUInt64BE();
  envelope.freshMs = take(8).readBigUInt64BE();
  envelope.key = take(take(4).readUInt32BE());
  envelope.tags = [];
  for (let n = take(2).readUInt16BE(); n > 0; --n) envelope.tags.push(take(take(2).readUInt16BE()));
  envelope.payload = take(take(4).readUInt32BE());
  return at === bytes.length ? envelope : null;
}

// A client for what this needs: one command at a time, bulk strings, arrays and integers.
function connect(path) {
  const socket = net.connect(path);
  let buffer = Buffer.alloc(0);
  let waiting = null;
  const parse = (at) => {
    const end = buffer.indexOf('\r\n', at);
    if (end < 0) return null;
    const kind = String.fromCharCode(buffer[at]);
    const head = buffer.toString('latin1', at + 1, end);
    if (kind === '+' || kind === ':') return [head, end + 2];
    if (kind === '-') throw new Error(head);
    const count = Number(head);
    if (count < 0) return [null, end + 2];
    if (kind === '$') {
      if (buffer.length < end + 2 + count + 2) return null;
      return [buffer.subarray(end + 2, end + 2 + count), end + 2 + count + 2];
    }
    const list = [];
    let next = end + 2;
    for (let i = 0; i < count; ++i) {
      const element = parse(next);
      if (element === null) return null;
      list.push(element[0]);
      next = element[1];
    }
    return [list, next];
  };
  socket.on('data', (data) => {
    buffer = Buffer.concat([buffer, data]);
    const reply = parse(0);
    if (reply === null || waiting === null) return;
    buffer = buffer.subarray(reply[1]);
    const done = waiting;
    waiting = null;
    done(reply[0]);
  });
  return {
    ask: (...words) => new Promise((resolve) => {
      waiting = resolve;
      const parts = [Buffer.from(`*${words.length}\r\n`)];
      for (const word of words.map((w) => Buffer.from(w)))
        parts.push(Buffer.from(`$${word.length}\r\n`), word, Buffer.from('\r\n'));
      socket.write(Buffer.concat(parts));
    }),
    end: () => socket.end(),
  };
}

async function main(path, name, prefix) {
  const redis = connect(path);
  const key = Buffer.from(prefix + name);
  const bytes = await redis.ask('GET', key);
  const envelope = bytes && decode(bytes);
  if (!envelope) {
    redis.end();
    return null;
  }
  const bare = Buffer.from(name);
  const buckets = new Set([bucketOf('k', bare), bucketOf('a', Buffer.alloc(0))]);
  if (bare.indexOf(':') >= 0) buckets.add(bucketOf('p', bare.subarray(0, bare.indexOf(':'))));
  for (const tag of envelope.tags) buckets.add(bucketOf('t', tag));
  const sorted = [...buckets].sort((a, b) => a - b);
  const versions = await redis.ask('MGET', ...sorted.map((n) => `${prefix}v:${n}`));
  const info = (await redis.ask('INFO')).toString();
  redis.end();

  const instance = fnv128(Buffer.from(info.match(/^run_id:(\w+)/m)[1] + ':' + info.match(/^master_replid:(\w+)/m)[1]));
  const incarnation = fnv128(instance, number64(0), Buffer.from(prefix));
  const parts = versions.flatMap((nonce, i) =>
    [number64(sorted[i]), number64(nonce ? nonce.length : 0), nonce || Buffer.alloc(0)]);
  const valid = versions.every((nonce) => nonce) && envelope.versions.equals(fnv128(...parts)) &&
    envelope.incarnation.equals(incarnation) && envelope.key.equals(key) &&
    BigInt(Date.now()) < envelope.madeAt + envelope.freshMs;
  return {
    payload: envelope.payload.toString(), valid, tags: envelope.tags.map(String),
    key: envelope.key.toString(), freshMs: Number(envelope.freshMs),
  };
}

main(process.argv[2], process.argv[3], process.argv[4] || '').then((entry) => console.log(JSON.stringify(entry)));
