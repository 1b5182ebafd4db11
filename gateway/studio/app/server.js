// How the servers are now: asked again every two seconds, as long as somebody looks.

import { html, useEffect, useState } from '../vendor/htm-preact.js';
import { ask } from './api.js';
import { Failure, Told } from './parts.js';
import { useStore } from './store.js';
import { number, t } from './words.js';

const EVERY_MS = 2000;
const STAGES = ['prepare', 'encode', 'queue', 'denoise', 'decode', 'finish'];

function useStatus() {
  const [status, setStatus] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    let ended = false, timer;
    const look = async () => {
      try {
        if (!document.hidden) {
          setStatus(await ask('/v1/status'));
          setError(null);
        }
      } catch (refused) {
        setError(refused);
      }
      if (!ended) timer = setTimeout(look, EVERY_MS);
    };
    look();
    return () => { ended = true; clearTimeout(timer); };
  }, []);
  return [status, error];
}

const Figure = ({ name, value, note }) => html`<div class="figure"><dt>${t(`server.${name}`)}</dt><dd>${value}</dd>${note && html`<dd class="soft small">${note}</dd>`}</div>`;

function Latency({ stages }) {
  const shown = STAGES.filter((name) => stages[name] > 0);
  const whole = shown.reduce((sum, name) => sum + stages[name], 0);
  return html`<div class="latency"><h4 class="label">${t('server.stages')}</h4>
    <ul>${shown.map((name) => html`<li key=${name}><span>${t(`stage.${name}`)}</span>
      <span class="bar" aria-hidden="true"><i style=${{ width: `${(100 * stages[name]) / whole}%` }} /></span><span class="value">${t('milliseconds', { milliseconds: number(1000 * stages[name], 0) })}</span></li>`)}</ul>
  </div>`;
}

function One({ server }) {
  const { work } = server;
  const seconds = work?.latency_s?.total ?? (work?.latency_s && STAGES.reduce((sum, name) => sum + (work.latency_s[name] ?? 0), 0));
  return html`<li class="server">
    <header><h3><${Told}>${server.address}<//></h3><p class=${`state ${server.ready ? 'good' : 'bad'}`}>${t(server.ready ? 'server.ready' : 'server.away')}</p></header>
    ${server.why && html`<p class="small"><${Told}>${server.why}<//></p>`}
    <ul class="models">${server.models.map((model) => html`<li key=${model.id}><${Told}>${model.id}<//>
      <span class="soft">${t('server.model', { variant: model.variant, placement: model.placement })}</span>
      ${Object.keys(model.emulated).length > 0 && html`<span class="tag">${t('server.emulated')}</span>`}</li>`)}</ul>
    ${work ? html`<dl class="figures">
        <${Figure} name="queue" value=${number(work.waiting, 0)} note=${t('server.queue.note')} />
        <${Figure} name="active" value=${t('server.of', { count: work.active, most: work.most_active })} note=${t('server.active.note')} />
        <${Figure} name="rows" value=${work.rows_per_tick === null ? '–' : number(work.rows_per_tick, 1)} note=${t('server.rows.note')} />
        <${Figure} name="latency" value=${seconds ? t('seconds', { seconds: number(seconds, 2) }) : '–'} note=${t('server.latency.note', { count: number(work.requests_done, 0) })} />
      </dl>${work.latency_s && html`<${Latency} stages=${work.latency_s} />`}`
    : html`<p class="soft small">${t('server.unknown')} <${Told}>${server.work_unknown_because}<//></p>`}
  </li>`;
}

export function Server() {
  const [status, error] = useStatus();
  const { capabilities } = useStore();
  const key = capabilities?.key;
  const limits = Object.entries(key?.limits ?? {}).filter(([name, value]) => value !== null && name !== 'priority');
  return html`<div class="room">
    <h2>${t('server.title')}</h2>
    <p class="lead soft">${t('server.note')}</p>
    <${Failure} error=${error} />
    ${!status && !error && html`<p class="soft">${t('server.asking')}</p>`}
    ${status && html`<ul class="servers">${status.servers.map((server) => html`<${One} key=${server.address} server=${server} />`)}</ul>`}
    ${key && html`<section class="key"><h3>${t('server.key')}</h3>
      <p class="soft">${capabilities.features.open_access ? t('server.open') : html`<${Told}>${key.name}<//>`}</p>
      ${limits.length > 0 && html`<dl class="facts">${limits.map(([name, value]) => html`<div key=${name}><dt>${t(`limit.${name}`)}</dt><dd>${Array.isArray(value) ? value.join(', ') : value}</dd></div>`)}</dl>`}
      <p class="soft small"><a href="/docs">${t('server.docs')}</a></p></section>`}
  </div>`;
}
