// Values in Redis as cache libraries for Node write and read them.
//
//     node --input-type=module --eval "$(cat cache_libraries.mjs)" <unix socket of Redis> set|get
//
// started where the libraries are installed.  set: each library stores thing:7 and thing:8; get: prints as
// JSON which of them each library still has.
import { createCache } from 'cache-manager';
import { createKeyv } from '@keyv/redis';
import KeyvRedis from '@keyv/redis';
import { Keyv } from 'keyv';
import { BentoCache, bentostore } from 'bentocache';
import { redisDriver } from 'bentocache/drivers/redis';
import { RedisStore } from 'connect-redis';
import session from 'express-session';
import Redis from 'ioredis';
import { createClient } from 'redis';

const [path, mode] = process.argv.slice(-2);
const client = createClient({ socket: { path } });
await client.connect();

const io = new Redis({ path, keyPrefix: 'app:' });
const bento = new BentoCache({
  default: 'redis',
  stores: { redis: bentostore().useL2Layer(redisDriver({ connection: { path } })) },
});
const sessions = new RedisStore({ client });
if (!(sessions instanceof session.Store)) throw new Error('connect-redis is no store of express-session');

const keyed = (cache) => ({ set: (key) => cache.set(key, { of: key }), get: (key) => cache.get(key) });
const bentoed = (cache) => ({
  set: (key) => cache.set({ key, value: { of: key } }),
  get: (key) => cache.get({ key }),
});
const libraries = {
  ioredis: { set: (key) => io.set(key, 'x'), get: (key) => io.get(key) },
  'ioredis tags': {
    set: async (key) => { await io.set(`tagged:${key}`, 'x'); await io.sadd(`tag:of:${key}`, `tagged:${key}`); },
    get: (key) => io.get(`tagged:${key}`),
  },
  'cache-manager': keyed(createCache({ stores: [new Keyv({ store: new KeyvRedis(client) })] })),
  keyv: keyed(createKeyv(client, { namespace: 'shop' })),
  bentocache: bentoed(bento),
  'bentocache users': bentoed(bento.namespace('users')),
  'connect-redis': {
    set: (key) => sessions.set(key, { cookie: {}, of: key }),
    get: (key) => new Promise((resolve, reject) => sessions.get(key, (error, data) => error ? reject(error) : resolve(data))),
  },
};

const left = {};
for (const [name, library] of Object.entries(libraries)) {
  left[name] = [];
  for (const key of ['thing:7', 'thing:8']) {
    if (mode === 'set') await library.set(key);
    if (await library.get(key)) left[name].push(key);
  }
}
console.log(JSON.stringify(left));
process.exit(0);
