// Sessions as express-session and connect-redis themselves keep them.
//
//     node --input-type=module --eval "$(cat connect_sessions.mjs)" <unix socket of Redis> store|load <sid>
//
// started where the libraries are installed, with each version of connect-redis that is there.  store: a login's
// session, of an hour, under "<version>-<sid>"; load: what a request finds there, after it has touched it.  Prints
// JSON by version.
import session from 'express-session';
import { createClient } from 'redis';

const [path, mode, sid] = process.argv.slice(-3);
const client = createClient({ socket: { path } });
await client.connect();

const called = (fn) => new Promise((resolve, reject) => fn((error, value) => (error ? reject(error) : resolve(value))));
const answers = {};
for (const version of ['7', '8', '9']) {
  const library = await import(`connect-redis-${version}`);
  const store = new (library.RedisStore ?? library.default)({ client });
  const name = `${version}-${sid}`;
  if (mode === 'store') {
    const made = { sessionID: name, sessionStore: store };
    const fresh = new session.Session(made, { cookie: new session.Cookie({ maxAge: 3600000 }), userId: 7, of: version });
    await called((done) => store.set(name, fresh, done));
    answers[version] = true;
    continue;
  }
  const found = await called((done) => store.load(name, done));
  if (!found) {
    answers[version] = null;
    continue;
  }
  found.touch();
  await called((done) => store.touch(name, found, done));
  answers[version] = { ...JSON.parse(JSON.stringify(found)), ttl: await client.ttl(`sess:${name}`) };
}
console.log(JSON.stringify(answers));
process.exit(0);
