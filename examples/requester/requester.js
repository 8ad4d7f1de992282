// Asks another component and gets the answer later, by a callback.
//
//   {"to": "counter", "ask": {"name": "visits", "add": 1}}    answered by {"asked": "counter", "request": 1}
//   (empty)                                                   answered by what came back so far

import { request } from 'airssys:core/host-messaging@1.0.0';
import { log } from 'airssys:core/host-services@1.0.0';

const TIMEOUT_MS = 5000;
const asked = new Map(); // correlation id -> what was asked
const outcomes = [];
let count = 0;

// QuickJS has no TextEncoder; in a percent-encoded string every UTF-8 byte is one character away.
const encode = (value) =>
  Uint8Array.from(unescape(encodeURIComponent(JSON.stringify(value))), (character) => character.charCodeAt(0));
const decode = (bytes) => JSON.parse(decodeURIComponent(escape(String.fromCharCode(...bytes))));
// What another component answers may be anything.
const answerOf = (bytes) => {
  try {
    return decode(bytes);
  } catch {
    return `${bytes.length} bytes that are no JSON`;
  }
};

// An error of the world is thrown as it stands; anything else that is thrown would be a bug, and ends this instance.
function read(payload) {
  try {
    const { to, ask } = decode(payload);
    if (typeof to === 'string' && ask !== undefined) return { to, ask };
  } catch {}
  throw { tag: 'invalid', val: 'expected {"to": NAME, "ask": ANYTHING}' };
}

const reason = (error) => (error.val === undefined ? error.tag : `${error.tag}: ${JSON.stringify(error.val)}`);

export const componentLifecycle = {
  initialize(config) {},

  handleMessage(message) {
    if (message.payload.length === 0) return encode(outcomes);
    const order = read(message.payload);
    // What the host refuses is thrown, and so goes to whoever sent this message.
    const correlation = request(order.to, encode(order.ask), TIMEOUT_MS);
    asked.set(correlation, { request: ++count, to: order.to });
    return encode({ asked: order.to, request: count });
  },

  handleCallback({ correlation, outcome }) {
    const { request, to } = asked.get(correlation) ?? { request: 0, to: 'nobody' };
    asked.delete(correlation);
    const answered = outcome.tag === 'ok';
    const result = answered ? answerOf(outcome.val) : reason(outcome.val);
    outcomes.push({ request, to, [answered ? 'answer' : 'error']: result });
    log(answered ? 'info' : 'warn', `${to} answered ${JSON.stringify(result)}`, [['request', String(request)]]);
  },

  metadata() {
    return { name: 'requester', version: '1.0.0', description: 'Asks, and gets the answer by a callback' };
  },

  health() {
    return 'healthy';
  },

  shutdown() {},
};
