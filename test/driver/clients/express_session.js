// What a request of an Express application does to its session, as express-session and connect-redis do it.
//
//     node express_session.js <unix socket of Redis> [key prefix]   with JSON lines on standard input:
//
//     ["login", sid, maxAge or null, data]    the session as a login leaves it
//     ["request", sid]                        load, touch, answer: {"data", "cookie", "ttl"} or null
//     ["save", sid, data]                     load, change, store
//     ["logout", sid]
//
// Prints a line of JSON for each.  The rules are those of express-session 1.18 (session/store.js, session.js,
// cookie.js) and of connect-redis 7 to 9: the JSON under "sess:<sid>", a life of whole seconds from cookie.expires
// or a day, and a touch that changes the life alone.
'use strict';
const net = require('net');
const readline = require('readline');

const [path, prefix = ''] = process.argv.slice(2);
const DAY = 86400;
const socket = net.connect(path);
let buffer = Buffer.alloc(0);
const waiting = [];

// One reply off the buffer: simple strings, errors, integers and bulk strings are all this needs.
function take() {
  const end = buffer.indexOf('\r\n');
  if (end < 0) return undefined;
  const line = buffer.toString('utf8', 1, end);
  const kind = String.fromCharCode(buffer[0]);
  if (kind !== '$') {
    buffer = buffer.subarray(end + 2);
    return kind === ':' ? Number(line) : kind === '-' ? new Error(line) : line;
  }
  const length = Number(line);
  if (length < 0) {
    buffer = buffer.subarray(end + 2);
    return null;
  }
  if (buffer.length < end + 2 + length + 2) return undefined;
  const value = buffer.toString('utf8', end + 2, end + 2 + length);
  buffer = buffer.subarray(end + 2 + length + 2);
  return value;
}

socket.on('data', (bytes) => {
  buffer = Buffer.concat([buffer, bytes]);
  for (let reply; waiting.length > 0 && (reply = take()) !== undefined; ) waiting.shift()(reply);
});

async function redis(...command) {
  const parts = command.map(String);
  socket.write(`*${parts.length}\r\n` + parts.map((p) => `$${Buffer.byteLength(p)}\r\n${p}\r\n`).join(''));
  const reply = await new Promise((resolve) => waiting.push(resolve));
  if (reply instanceof Error) throw reply;
  return reply;
}

const key = (sid) => `${prefix}sess:${sid}`;

// connect-redis: the life of the key.
function ttlOf(session) {
  if (session.cookie && session.cookie.expires)
    return Math.ceil((Number(new Date(session.cookie.expires)) - Date.now()) / 1000);
  return DAY;
}

async function store(sid, session) {
  const ttl = ttlOf(session);
  return ttl > 0 ? redis('SET', key(sid), JSON.stringify(session), 'EX', ttl) : redis('DEL', key(sid));
}

// express-session: a session that is loaded must have a cookie, whose end becomes a Date.
async function load(sid) {
  const text = await redis('GET', key(sid));
  if (text === null) return null;
  const session = JSON.parse(text);
  if (typeof session.cookie.expires === 'string') session.cookie.expires = new Date(session.cookie.expires);
  return session;
}

// express-session: at the end of a request the cookie's life begins anew.
function renew(session) {
  const { originalMaxAge } = session.cookie;
  session.cookie.expires = typeof originalMaxAge === 'number' ? new Date(Date.now() + originalMaxAge) : null;
}

const actions = {
  async login(sid, maxAge, data) {
    const expires = maxAge === null ? null : new Date(Date.now() + maxAge);
    await store(sid, { cookie: { originalMaxAge: maxAge, expires, httpOnly: true, path: '/' }, ...data });
    return true;
  },
  async request(sid) {
    const session = await load(sid);
    if (session === null) return null;
    const cookie = { ...session.cookie };
    renew(session);
    await redis('EXPIRE', key(sid), ttlOf(session));
    const { cookie: _, ...data } = session;
    return { data, cookie, ttl: await redis('TTL', key(sid)) };
  },
  async save(sid, data) {
    const session = await load(sid);
    renew(session);
    await store(sid, Object.assign(session, data));
    return true;
  },
  async logout(sid) {
    return (await redis('DEL', key(sid))) > 0;
  },
};

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [action, ...rest] = JSON.parse(line);
    let answer;
    try {
      answer = await actions[action](...rest);
    } catch (error) {
      answer = { error: String(error) };
    }
    console.log(JSON.stringify(answer));
  }
  process.exit(0);
})();
