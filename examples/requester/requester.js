// Asks another component and gets the answer later, by a callback.
//
//   {"to": "counter", "ask": {"name": "visits", "add": 1}}    answered by {"asked": "counter", "request": 1}
//   {}                                                        answered by what came back so far

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

const reason = (error) => (error.val === undefined ? error.tag : `${error.tag}: ${JSON.stringify(error.val)}`);

export const componentLifecycle = {
  initialize(config) {},

  handleMessage(message) {
    const order = decode(message.payload);
    if (order.to === undefined) return encode(outcomes);
    // What the host refuses is thrown, and so goes to whoever sent this message.
    const correlation = request(order.to, encode(order.ask), TIMEOUT_MS);
    asked.set(correlation, { request: ++count, to: order.to });
    return encode({ asked: order.to, request: count });
  },

  handleCallback({ correlation, outcome }) {
    const { request, to } = asked.get(correlation);
    asked.delete(correlation);
    const answered = outcome.tag === 'ok';
    const result = answered ? decode(outcome.val) : reason(outcome.val);
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
