// Counts the lines and words of each file that it is given: tally FILE...
import { getArguments } from 'wasi:cli/environment@0.2.12';
import { getDirectories } from 'wasi:filesystem/preopens@0.2.12';
import { getStderr } from 'wasi:cli/stderr@0.2.12';
import { getStdout } from 'wasi:cli/stdout@0.2.12';

const bytesOf = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const print = (stream, text) => stream.blockingWriteAndFlush(bytesOf(text + '\n'));

// The directory that the program was given which holds the path, and the rest of the path.
function locate(path) {
  const prefixes = getDirectories().map(([directory, name]) => [directory, name === '.' ? '' : name.replace(/\/*$/, '/')]);
  const fitting = prefixes.filter(([, prefix]) => path.startsWith(prefix)).sort((a, b) => b[1].length - a[1].length);
  return [fitting[0][0], path.slice(fitting[0][1].length)];
}

function read(path) {
  const [directory, rest] = locate(path);
  const file = directory.openAt({ symlinkFollow: true }, rest, {}, { read: true });
  let text = '';
  for (let ended = false; !ended; ) {
    const [bytes, last] = file.read(4096, text.length);
    text += String.fromCharCode(...bytes);
    ended = last || bytes.length === 0;
  }
  return text;
}

export const run = {
  run() {
    let failed = false;
    for (const path of getArguments().slice(1)) {
      try {
        const text = read(path);
        const words = text.split(/\s+/).filter((word) => word !== '').length;
        print(getStdout(), `${path}: ${text.split('\n').length - 1} lines, ${words} words`);
      } catch (error) {
        failed = true;
        print(getStderr(), `tally: ${path}: ${error?.payload ?? error}`);
      }
    }
    if (failed) throw undefined; // preview 2 knows success and failure only
  },
};
