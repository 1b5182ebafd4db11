// The gateway's HTTP interface. Every failure is a `Refused` in the server's own words.

import { now, set } from './store.js';
import { t } from './words.js';

export class Refused extends Error {
  /** `told`: `error` of the answer: message, param, code. `status`: 0 where there was no answer. */
  constructor(status, told) {
    super(told.message);
    Object.assign(this, { status, param: told.param ?? null, code: told.code ?? null, ours: told.ours ?? false });
  }
}

async function answered(path, options = {}) {
  const headers = { ...options.headers };
  if (now().key) headers.Authorization = `Bearer ${now().key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refused(0, { message: t('error.unreachable'), ours: true });
  }
  if (response.ok) return response;
  if (response.status === 401) set({ keyWanted: true });
  const told = await response.json().then((body) => body.error, () => null);
  throw new Refused(response.status, told ?? { message: t('error.status', { status: response.status }), ours: true });
}

export const ask = async (path, options = {}) => (await answered(path, options)).json();

export const send = (path, body, options = {}) =>
  ask(path, { method: 'POST', headers: { 'Content-Type': 'application/json', ...options.headers }, body: JSON.stringify(body), signal: options.signal });

export function sendFile(path, name, file) {
  const form = new FormData();
  form.append(name, file, file.name ?? 'picture.png');
  return ask(path, { method: 'POST', body: form });
}

const LONGEST_PAUSE_MS = 10_000;

/** Whether to ask again: nobody answered, the answer broke off, or whoever answers is away or too busy. */
const passes = ({ status = 0 }) => status === 0 || status === 429 || status >= 500;

/** After so many breaks in a row. */
const pause = (breaks) => new Promise((resolve) => setTimeout(resolve, Math.min(400 * 2 ** breaks, LONGEST_PAUSE_MS)));

/** Events of a stream: {id, event, data}. Ends when the server has said the last. After a break it goes on behind the last one that
 *  came: it asks until the gateway answers or refuses. `onAway`: gets whether the gateway is away. */
export async function* events(path, isLast, onAway) {
  let last = null;
  for (let breaks = 0; ; breaks += 1) {
    try {
      const headers = { Accept: 'text/event-stream', ...(last === null ? {} : { 'Last-Event-ID': last }) };
      const response = await answered(path, { headers });
      onAway(false);
      for await (const event of parsed(response.body)) {
        if (event.id) [last, breaks] = [event.id, 0];
        yield event;
        if (isLast(event)) return;
      }
    } catch (error) {
      if (!passes(error)) throw error;
    }
    onAway(true);
    await pause(breaks);
  }
}

/** A picture; asks as long as `events` does. */
export async function file(url, onAway) {
  for (let breaks = 0; ; breaks += 1) {
    try {
      const blob = await (await answered(url)).blob();
      onAway(false);
      return blob;
    } catch (error) {
      if (!passes(error)) throw error;
    }
    onAway(true);
    await pause(breaks);
  }
}

async function* parsed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (text + value).replaceAll('\r\n', '\n').split('\n\n');
    text = blocks.pop();
    for (const block of blocks) {
      const event = { id: null, event: 'message', data: '' };
      for (const line of block.split('\n')) {
        const [, field, content] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
        if (field === 'data') event.data += content;
        else if (field) event[field] = content;
      }
      if (event.data) yield { ...event, data: event.data === '[DONE]' ? null : JSON.parse(event.data) };
    }
  }
}

export const asBase64 = (blob) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(',') + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
