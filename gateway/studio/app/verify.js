// Which marks a picture bears.

import { html, useEffect, useState } from '../vendor/htm-preact.js';
import { sendFile } from './api.js';
import { Drop, Failure, Icon, Notice, Told, useUrl } from './parts.js';
import { say, set, useStore } from './store.js';
import { t } from './words.js';

const GOOD = ['trusted', 'valid', 'found'], BAD = ['invalid', 'unreadable'];
const kindOf = (state) => (GOOD.includes(state) ? 'good' : BAD.includes(state) ? 'bad' : 'none');

function facts(technique, told) {
  if (technique === 'credentials') return [['signer', told.signer], ['system', told.system], ['when', told.when], ['actions', (told.actions ?? []).join(', ')]];
  if (technique === 'mark') return [['mark_id', told.mark_id]];
  return [['producer', told.aigc?.ContentProducer], ['produce_id', told.aigc?.ProduceID], ['source', told.source]];
}

function Technique({ name, told }) {
  return html`<li class=${`technique ${kindOf(told.state)}`}>
    <h3>${t(`verify.${name}`)}</h3>
    <p class="state">${t(`state.${told.state}`)}</p>
    <p class="soft small">${t(`verify.${name}.what`)}</p>
    ${told.why && html`<p class="small"><${Told}>${told.why}<//></p>`}
    <dl class="facts">${facts(name, told).filter(([, value]) => value).map(([key, value]) => html`<div key=${key}><dt>${t(`fact.${key}`)}</dt><dd><${Told}>${value}<//></dd></div>`)}</dl>
  </li>`;
}

export function Verify() {
  const { toVerify } = useStore();
  const [report, setReport] = useState(null);
  const [error, setError] = useState(null);
  const url = useUrl(toVerify);
  useEffect(() => {
    if (!toVerify) return;
    let current = true;
    setReport(null);
    setError(null);
    sendFile('/v1/verify', 'picture', toVerify).then(
      (told) => { if (current) { setReport(told); say(t('verify.done')); } },
      (refused) => { if (current) setError(refused); },
    );
    return () => { current = false; };
  }, [toVerify]);
  return html`<div class="room">
    <h2>${t('verify.title')}</h2>
    <p class="lead soft">${t('verify.note')}</p>
    <div class="verify">
      <div>
        <${Drop} label=${t(toVerify ? 'verify.another' : 'verify.drop')} hint=${t('verify.hint')} compact=${Boolean(toVerify)} onFiles=${([file]) => set({ toVerify: file })} />
        ${url && html`<figure class="verified"><img src=${url} alt=${t('verify.alt')} /><figcaption class="soft small"><${Told}>${toVerify.name}<//></figcaption></figure>`}
      </div>
      <div class="report" aria-busy=${Boolean(toVerify && !report && !error)}>
        ${!toVerify && html`<ul class="techniques">${['credentials', 'label', 'mark'].map((name) => html`<li key=${name} class="technique"><h3>${t(`verify.${name}`)}</h3>
          <p class="soft small">${t(`verify.${name}.what`)}</p></li>`)}</ul>`}
        ${toVerify && !report && !error && html`<p class="soft">${t('verify.reading')}</p>`}
        <${Failure} error=${error} />
        ${report && html`
          <p class=${`conclusion ${report.doubtful ? 'bad' : report.found ? 'good' : 'none'}`}><${Icon} name=${report.doubtful || !report.found ? 'warn' : 'check'} />
            <span>${t(`verify.${report.doubtful ? 'doubtful' : report.found ? 'found' : 'nothing'}`)}</span></p>
          <ul class="techniques">${['credentials', 'label', 'mark'].map((name) => html`<${Technique} key=${name} name=${name} told=${report[name]} />`)}</ul>
          ${report.warnings.map((warning) => html`<${Notice} key=${warning}><${Told}>${warning}<//><//>`)}`}
      </div>
    </div>
  </div>`;
}
