// Filters, reshapes, groups and sorts a JSON array of objects.
//
//   json-transform IN OUT [--where KEY=VALUE] [--pick KEY,...] [--group-by KEY [--sum KEY]] [--sort KEY | --sort -KEY]
//
// A KEY may go into an object with dots: customer.name. Prints how many records went in and came out.

import { getArguments } from 'wasi:cli/environment@0.2.12';
import { getStdout } from 'wasi:cli/stdout@0.2.12';
import { getStderr } from 'wasi:cli/stderr@0.2.12';
import { getDirectories } from 'wasi:filesystem/preopens@0.2.12';

const BLOCK_BYTES = 65536;

// QuickJS has no TextEncoder; in a percent-encoded string every UTF-8 byte is one character away.
function encode(text) {
  return Uint8Array.from(unescape(encodeURIComponent(text)), (character) => character.charCodeAt(0));
}

function decode(blocks) {
  let latin1 = '';
  for (const block of blocks)
    for (let at = 0; at < block.length; at += 4096) latin1 += String.fromCharCode(...block.subarray(at, at + 4096));
  return decodeURIComponent(escape(latin1));
}

function print(stream, text) {
  const bytes = encode(text);
  for (let at = 0; at < bytes.length; at += 4096) stream.blockingWriteAndFlush(bytes.subarray(at, at + 4096));
}

// The preopened directory that holds `path`, and what is left of the path beneath it.
function locate(path) {
  let best = null;
  for (const [directory, name] of getDirectories()) {
    const prefix = name === '.' ? '' : name.endsWith('/') ? name : name + '/';
    if (path.startsWith(prefix) && (best === null || prefix.length > best.prefix.length)) best = { directory, prefix };
  }
  if (best === null) throw `${path}: beneath no directory that was given to me`;
  return { directory: best.directory, rest: path.slice(best.prefix.length) };
}

function open(path, openFlags, flags) {
  const { directory, rest } = locate(path);
  try {
    return directory.openAt({ symlinkFollow: true }, rest, openFlags, flags);
  } catch (error) {
    throw `${path}: ${reason(error)}`;
  }
}

function reason(error) {
  const payload = error?.payload ?? error;
  return typeof payload === 'string' ? payload : payload?.message ?? JSON.stringify(payload);
}

function readText(path) {
  const file = open(path, {}, { read: true });
  const blocks = [];
  for (let offset = 0; ; ) {
    const [bytes, ended] = file.read(BLOCK_BYTES, offset);
    blocks.push(Uint8Array.from(bytes));
    offset += bytes.length;
    if (ended || bytes.length === 0) return decode(blocks);
  }
}

function writeText(path, text) {
  const file = open(path, { create: true, truncate: true }, { write: true });
  const bytes = encode(text);
  for (let at = 0; at < bytes.length; ) at += Number(file.write(bytes.subarray(at, at + BLOCK_BYTES), at));
}

const valueOf = (record, key) => key.split('.').reduce((value, part) => value?.[part], record);

const compare = (a, b) => (typeof a === 'number' && typeof b === 'number' ? a - b : String(a) < String(b) ? -1 : String(a) > String(b) ? 1 : 0);

const cents = (number) => Math.round(number * 100) / 100;

function group(records, key, sumKey) {
  const groups = new Map();
  for (const record of records) {
    const value = valueOf(record, key);
    const entry = groups.get(value) ?? { [key]: value, count: 0 };
    entry.count += 1;
    if (sumKey !== undefined) entry[sumKey] = cents((entry[sumKey] ?? 0) + Number(valueOf(record, sumKey) ?? 0));
    groups.set(value, entry);
  }
  return [...groups.values()];
}

export function transform(records, options) {
  let result = records;
  if (options.where !== undefined) {
    const at = options.where.indexOf('=');
    const [key, value] = [options.where.slice(0, at), options.where.slice(at + 1)];
    result = result.filter((record) => String(valueOf(record, key)) === value);
  }
  if (options.pick !== undefined) {
    const keys = options.pick.split(',');
    result = result.map((record) => Object.fromEntries(keys.map((key) => [key, valueOf(record, key)])));
  }
  if (options['group-by'] !== undefined) result = group(result, options['group-by'], options.sum);
  if (options.sort !== undefined) {
    const descending = options.sort.startsWith('-');
    const key = descending ? options.sort.slice(1) : options.sort;
    // A grouped record has the dotted key itself as its key.
    const value = (record) => record[key] ?? valueOf(record, key);
    result = [...result].sort((a, b) => (descending ? -1 : 1) * compare(value(a), value(b)));
  }
  return result;
}

const OPTIONS = ['where', 'pick', 'group-by', 'sum', 'sort'];

function main(args) {
  const paths = [];
  const options = {};
  for (let i = 0; i < args.length; i++) {
    if (!args[i].startsWith('--')) paths.push(args[i]);
    else if (OPTIONS.includes(args[i].slice(2)) && i + 1 < args.length) options[args[i].slice(2)] = args[++i];
    else throw `unknown or incomplete option ${args[i]}`;
  }
  if (paths.length !== 2) throw `usage: json-transform IN OUT ${OPTIONS.map((name) => `[--${name} ...]`).join(' ')}`;
  const records = JSON.parse(readText(paths[0]));
  if (!Array.isArray(records)) throw `${paths[0]}: an array of objects was expected`;
  const result = transform(records, options);
  writeText(paths[1], '[\n' + result.map((record) => '  ' + JSON.stringify(record)).join(',\n') + '\n]\n');
  print(getStdout(), `${records.length} records in, ${result.length} out: ${paths[1]}\n`);
}

export const run = {
  run() {
    try {
      main(getArguments().slice(1));
    } catch (error) {
      print(getStderr(), `json-transform: ${typeof error === 'string' ? error : error.message}\n`);
      throw undefined; // the error case of result<_, _>: preview 2 knows success and failure only
    }
  },
};
