'use strict';

/*
 * An in-process cache that a database keeps true.
 *
 * cache_ext publishes on `<prefix>invalidate` what each delivery has removed from Redis.  This cache
 * forgets the same, and forgets everything whenever it cannot know what it has missed: a number that
 * does not follow the last one, another epoch, a lost connection, `"all": true`.  It needs nothing but
 * Node: the subscriber below speaks the little of Redis's protocol that SUBSCRIBE takes.
 *
 *	const cache = new LocalCache({ path: '/run/redis/redis.sock', database: 'shop' });
 *	await cache.ready();
 *	const vendor = await cache.get('vendor:7', ['vendors'], () => loadVendor(7));
 *
 * A value that was asked for before an invalidation and arrives after it is given to who asked, and
 * not kept.  While there is no connection nothing is kept at all.
 */

const net = require('node:net');
const { EventEmitter } = require('node:events');

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2000;

/** Takes replies off a stream of bytes: arrays, strings, numbers, errors. */
class Replies {
	constructor() {
		this.bytes = Buffer.alloc(0);
	}

	feed(chunk) {
		this.bytes = this.bytes.length === 0 ? chunk : Buffer.concat([this.bytes, chunk]);
	}

	/** The next whole reply, or undefined. */
	next() {
		const found = this.parse(0);

		if (found === undefined)
			return undefined;
		this.bytes = this.bytes.subarray(found.end);
		return found.value;
	}

	parse(at) {
		const stop = this.bytes.indexOf('\r\n', at);

		if (stop < 0)
			return undefined;

		const kind = String.fromCharCode(this.bytes[at]);
		const line = this.bytes.toString('utf8', at + 1, stop);
		let end = stop + 2;

		switch (kind) {
		case '+':
			return { value: line, end };
		case '-':
			throw new Error(line);
		case ':':
			return { value: Number(line), end };
		case '$': {
			const length = Number(line);

			if (length < 0)
				return { value: null, end };
			if (this.bytes.length < end + length + 2)
				return undefined;
			return { value: this.bytes.toString('utf8', end, end + length), end: end + length + 2 };
		}
		case '*': {
			const value = [];

			for (let i = 0; i < Number(line); ++i) {
				const element = this.parse(end);

				if (element === undefined)
					return undefined;
				value.push(element.value);
				end = element.end;
			}
			return { value, end };
		}
		default:
			throw new Error(`unexpected reply of Redis: ${kind}`);
		}
	}
}

/** Redis's globs, for events that name patterns. */
function globToRegExp(glob) {
	let source = '';

	for (let i = 0; i < glob.length; ++i) {
		const c = glob[i];
		const close = c === '[' ? glob.indexOf(']', i + 1) : -1;

		if (c === '*')
			source += '[^]*';
		else if (c === '?')
			source += '[^]';
		else if (close > 0) {
			source += '[' + glob.slice(i + 1, close).replace(/[\]\\]/g, '\\$&') + ']';
			i = close;
		} else
			source += (c === '\\' && i + 1 < glob.length ? glob[++i] : c).replace(/[.*+?^${}()|[\]\\\/]/g, '\\$&');
	}
	return new RegExp(`^${source}$`);
}

class LocalCache extends EventEmitter {
	/** options: host and port, or path; password; prefix (cache_ext.key_prefix); database. */
	constructor(options) {
		super();
		this.options = options;
		this.channel = (options.prefix || '') + 'invalidate';
		this.values = new Map(); /* key: { value, tags } */
		this.subscribed = false;
		this.forgotten = 0; /* grows with everything that is forgotten */
		this.last = null;   /* epoch and seq of the last event */
		this.pause = FIRST_PAUSE_MS;
		this.closed = false;
		this.connect();
	}

	ready() {
		return this.subscribed ? Promise.resolve() : new Promise((done) => this.once('ready', done));
	}

	/** The kept value, or what load() gives. */
	async get(key, tags, load) {
		const kept = this.values.get(key);

		if (kept !== undefined)
			return kept.value;

		const before = this.forgotten;
		const value = await load();

		/* Anything forgotten meanwhile may have been this: then nobody else gets the value. */
		if (this.subscribed && this.forgotten === before)
			this.values.set(key, { value, tags });
		return value;
	}

	close() {
		this.closed = true;
		clearTimeout(this.timer);
		this.socket.destroy();
	}

	clear(why) {
		++this.forgotten;
		this.values.clear();
		this.emit('clear', why);
	}

	connect() {
		const { host, port, path, password } = this.options;
		const replies = new Replies();
		const command = (...words) => words.map((word, i) =>
			(i === 0 ? `*${words.length}\r\n` : '') + `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('');

		this.socket = net.connect(path !== undefined ? { path } : { host, port: port || 6379 });
		this.socket.setKeepAlive(true, 10000);
		this.socket.on('connect', () => {
			if (password !== undefined)
				this.socket.write(command('AUTH', password));
			this.socket.write(command('SUBSCRIBE', this.channel));
		});
		this.socket.on('data', (chunk) => {
			try {
				replies.feed(chunk);
				for (let reply = replies.next(); reply !== undefined; reply = replies.next())
					this.receive(reply);
			} catch (error) {
				this.socket.destroy(error);
			}
		});
		this.socket.on('error', () => {}); /* 'close' follows */
		this.socket.on('close', () => this.lost());
	}

	/** Whatever is published from now on is missed. */
	lost() {
		this.subscribed = false;
		this.last = null;
		this.clear('connection lost');
		if (this.closed)
			return;
		this.timer = setTimeout(() => this.connect(), this.pause);
		this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
	}

	receive(reply) {
		if (!Array.isArray(reply))
			return; /* AUTH's +OK */
		if (reply[0] === 'subscribe') {
			this.clear('subscribed'); /* nobody knows what was published before */
			this.subscribed = true;
			this.pause = FIRST_PAUSE_MS;
			this.emit('ready');
		} else if (reply[0] === 'message')
			this.apply(JSON.parse(reply[2]));
	}

	apply(event) {
		if (event.database !== this.options.database)
			return;

		const last = this.last;

		this.last = { epoch: event.epoch, seq: event.seq };
		if (event.v !== 1)
			this.clear(`events of version ${event.v}`);
		else if (last !== null && event.epoch !== last.epoch)
			this.clear('new epoch');
		else if (last !== null && event.seq !== last.seq + 1)
			this.clear('gap');
		else if (event.all)
			this.clear('all');
		else
			this.forget(event);
		this.emit('event', event);
	}

	forget({ keys, tags, patterns }) {
		const gone = new Set(tags);
		const globs = patterns.map(globToRegExp);

		++this.forgotten;
		for (const key of keys)
			this.values.delete(key);
		if (gone.size === 0 && globs.length === 0)
			return;
		for (const [key, kept] of this.values)
			if (kept.tags.some((tag) => gone.has(tag)) || globs.some((glob) => glob.test(key)))
				this.values.delete(key);
	}
}

module.exports = { LocalCache };
