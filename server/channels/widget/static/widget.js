/* AI Secretary web widget: <script defer src="https://host/widget/v1/widget.js" data-key="pk_..."></script>
 * Options: data-lang, -title, -color, -open. A click on any [data-secretary-ask="question"] of the page asks it.
 * The socket opens on first use or for a returning visitor: a page view alone creates no visitor. */
(() => {
  'use strict';
  if (window.aiSecretary) return window.aiSecretary.attach(); // loaded twice, or the page swapped its body
  const script = document.currentScript || document.querySelector('script[data-key][src*="/widget.js"]');
  if (!script?.dataset.key) return;
  const { key, lang = navigator.language || 'en', title, color } = script.dataset;
  const german = lang.toLowerCase().startsWith('de');
  const T = german ? {
    open: 'Chat öffnen', close: 'Chat schließen', unread: 'neue Nachrichten', ai: 'KI-Assistent', label: 'Ihre Nachricht',
    send: 'Senden', you: 'Sie', greeting: 'Guten Tag! Wie kann ich helfen?', sources: 'Quellen', page: 'S.', queued: 'Wird gesendet …',
    failed: 'Nicht gesendet.', retry: 'Erneut senden', drop: 'Verwerfen', long: 'Die Nachricht ist zu lang.',
    reduced: 'eingeschränkter Betrieb', denied: 'Der Chat ist auf dieser Seite nicht verfügbar.', human: 'Mit einem Menschen sprechen',
    ask: 'Ich möchte bitte mit einem Menschen sprechen.', note: 'Hier antwortet eine KI; sie kann sich irren.',
    lost: 'Keine Verbindung. Nachrichten werden später gesendet.',
  } : {
    open: 'Open chat', close: 'Close chat', unread: 'new messages', ai: 'AI assistant', label: 'Your message',
    send: 'Send', you: 'You', greeting: 'Hello! How can I help?', sources: 'Sources', page: 'p.', queued: 'Sending …',
    failed: 'Not sent.', retry: 'Send again', drop: 'Discard', long: 'The message is too long.',
    reduced: 'reduced service', denied: 'The chat is not available on this page.', human: 'Talk to a person',
    ask: 'I would like to talk to a person, please.', note: 'An AI answers here; it can be wrong.',
    lost: 'No connection. Messages will be sent later.',
  };

  // ---- kept over a reload; where storage is blocked or full, memory has to do
  const NS = `secretary:${key}`, OUT = `${NS}:out:`;
  const read = (name) => { try { return JSON.parse(localStorage.getItem(name)); } catch { return null; } };
  const write = (name, value) => {
    try { value ? localStorage.setItem(name, JSON.stringify(value)) : localStorage.removeItem(name); } catch {  }
  };
  const saved = read(NS);
  const state = saved?.v === 1 ? saved : { v: 1, sid: null, epoch: null, cur: 0, seen: 0, history: [], cfg: {} };
  const save = () => write(NS, state);
  // One entry for each unacknowledged message: two tabs must not overwrite each other's.
  const outbox = new Map();
  try {
    Object.keys(localStorage).filter((k) => k.startsWith(OUT)).map(read).filter((x) => x?.cid)
      .sort((a, b) => (a.at < b.at ? -1 : 1)).forEach((x) => outbox.set(x.cid, x));
  } catch {  }

  // ---- the page
  const el = (tag, attrs, ...kids) => {
    const node = document.createElement(tag);
    for (const [k, v] of Object.entries(attrs || {})) if (v != null) k === 'onclick' ? (node.onclick = v) : node.setAttribute(k, v);
    node.append(...kids);
    return node;
  };
  const icon = (d) => {
    const [svg, path] = ['svg', 'path'].map((tag) => document.createElementNS('http://www.w3.org/2000/svg', tag));
    svg.setAttribute('viewBox', '0 0 24 24'); path.setAttribute('d', d); svg.append(path);
    return svg;
  };
  const CHAT = 'M4 5h16v11H9l-5 4z', DOWN = 'M6 9l6 6 6-6', UP = 'M12 19V5M6 11l6-6 6 6', STAR = 'M12 3l2 7 7 2-7 2-2 7-2-7-7-2 7-2z';
  const CSS = `:host{all:initial;--c:#1f6f5c;--on:#fff;--bg:#fff;--fg:#18211f;--soft:#f1f4f3;--line:#e0e6e4;--dim:#5d6966;--bad:#b3261e;--link:var(--c)}
@media(prefers-color-scheme:dark){:host{--bg:#171b1a;--fg:#eef2f1;--soft:#242a29;--line:#343c3a;--dim:#a5b0ad;--bad:#ff9a91;
--link:color-mix(in srgb,var(--c) 45%,#fff)}}*{box-sizing:border-box}
.root{position:fixed;inset-block-end:20px;inset-inline-end:20px;z-index:2147483000;color:var(--fg);font:15px/1.5 system-ui,sans-serif}
[hidden]{display:none!important}button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
svg{width:22px;fill:none;stroke:currentColor;stroke-width:2;stroke-linecap:round;stroke-linejoin:round}
.launch,.face,.send,.down{display:grid;place-items:center;flex:none;width:40px;height:40px;border-radius:50%}
.launch,.send,header,.me .bubble{background:var(--c);color:var(--on)}
.launch{position:relative;width:58px;height:58px;margin-inline-start:auto;box-shadow:0 6px 24px #0004}.launch svg{width:28px}button:hover svg{opacity:.8}
.badge{position:absolute;top:-4px;inset-inline-end:-4px;padding:0 7px;border-radius:11px;background:#b3261e;color:#fff;font-size:12px;line-height:22px}
.panel{position:absolute;inset-block-end:74px;inset-inline-end:0;display:flex;flex-direction:column;width:392px;
height:min(650px,calc(100vh - 114px));background:var(--bg);border:1px solid var(--line);border-radius:20px;overflow:hidden;box-shadow:0 18px 60px #0004}
header{display:flex;align-items:center;gap:12px;padding:16px 14px 16px 18px}header :focus-visible{outline-color:var(--on)}.face{background:#fff3}
.who{flex:1}.who b{display:block;font-size:17px;line-height:1.3}.who span{font-size:13px}.who span::before{content:"● ";color:#ffc45e}.who .up::before{color:#5fe3a1}
.notice{padding:9px 18px;font-size:13px;background:var(--soft)}.log{flex:1;overflow-y:auto;overscroll-behavior:contain;padding:20px 18px 8px;outline-offset:-3px}
.row{display:flex;flex-direction:column;align-items:flex-start;margin-block-end:14px}
.bubble{max-width:86%;padding:10px 14px;border-radius:18px;border-end-start-radius:5px;background:var(--soft);white-space:pre-wrap;overflow-wrap:anywhere}
.me{align-items:flex-end}.me .bubble{border-radius:18px;border-end-end-radius:5px}
[data-state=queued] .bubble{opacity:.7}[data-state=failed] .bubble{outline:2px solid var(--bad);outline-offset:2px}
.meta{margin:5px 4px 0;font-size:12px;color:var(--dim)}[data-state=failed] .meta{color:var(--bad)}
.meta button,.foot button{min-height:24px;margin-inline-start:8px;text-decoration:underline;color:var(--fg)}
a,.ref,summary b{color:var(--link)}.ref{font-size:.82em;font-weight:600}.cites{width:86%;margin:8px 0 0;padding:0;list-style:none;font-size:13px}
details{margin-block-end:5px;border:1px solid var(--line);border-radius:10px}summary{padding:6px 11px;cursor:pointer;color:var(--dim);border-radius:10px}
blockquote{margin:0 11px 9px;padding-inline-start:10px;border-inline-start:3px solid var(--c)}
.dots{display:flex;gap:5px;padding:15px}.dots i{width:7px;height:7px;border-radius:50%;background:var(--dim)}
form{display:flex;gap:8px;align-items:flex-end;margin:6px 14px 0;padding:5px 5px 5px 16px;border:1px solid var(--line);border-radius:26px}
form:focus-within{border-color:var(--link);box-shadow:0 0 0 1px var(--link)}
textarea{flex:1;max-height:120px;padding:8px 0;border:0;outline:0!important;resize:none;background:none;color:inherit;font:inherit}
::placeholder{color:var(--dim);opacity:1}.send:disabled{background:var(--soft);color:var(--dim);cursor:default}
.foot{padding:8px 18px 11px;font-size:12px;text-align:center;color:var(--dim)}.sr{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
@media(max-width:480px){.panel{position:fixed;inset:0;width:auto;height:auto;border:0;border-radius:0}.panel:not([hidden])+.launch{display:none}}
@media(prefers-reduced-motion:no-preference){@keyframes up{from{opacity:0;transform:translateY(8px)}}@keyframes dot{30%{transform:translateY(-4px)}}
.panel,.fresh{animation:up .2s}.dots i{animation:dot 1.2s infinite}.dots i+i{animation-delay:.15s}.dots i+i+i{animation-delay:.3s}}`;
  const host = el('ai-secretary'), shadow = host.attachShadow({ mode: 'open' }), sheet = new CSSStyleSheet();
  sheet.replaceSync(CSS);
  shadow.adoptedStyleSheets = [sheet];
  const badge = el('span', { class: 'badge', 'data-role': 'unread', 'aria-hidden': 'true', hidden: '' });
  const launcher = el('button', { type: 'button', class: 'launch', 'data-role': 'launcher', 'aria-expanded': 'false',
    onclick: () => toggle(panel.hidden) }, icon(CHAT), badge);
  const name = el('b'), status = el('span', { 'data-role': 'status' });
  const notice = el('div', { class: 'notice', 'data-role': 'notice', hidden: '' });
  const log = el('div', { class: 'log', role: 'log', 'aria-live': 'off', 'aria-label': 'Chat', tabindex: '0' });
  const live = el('div', { class: 'sr', 'aria-live': 'polite', 'data-role': 'live' }); // the one region that is read aloud
  const input = el('textarea', { rows: '1', 'aria-label': T.label, placeholder: `${T.label} …`, maxlength: '4000', dir: 'auto',
    'data-role': 'input', enterkeyhint: 'send' });
  const button = el('button', { type: 'submit', class: 'send', 'data-role': 'send', 'aria-label': T.send, disabled: '' }, icon(UP));
  const form = el('form', {}, input, button);
  const human = el('button', { type: 'button', 'data-role': 'human', onclick: () => send(T.ask) }, T.human);
  const panel = el('div', { class: 'panel', 'data-role': 'panel', role: 'dialog', hidden: '' },
    el('header', {}, el('div', { class: 'face' }, icon(STAR)), el('div', { class: 'who' }, name, status),
      el('button', { type: 'button', class: 'down', 'data-role': 'close', 'aria-label': T.close, onclick: () => toggle(false) }, icon(DOWN))),
    notice, log, form, el('div', { class: 'foot' }, `${T.note} `, human));
  const root = el('div', { class: 'root', lang: german ? 'de' : 'en' }, panel, launcher, live);
  shadow.append(root);
  const attach = () => { host.isConnected || (document.body || document.documentElement).append(host); };

  function paint() {
    const cfg = state.cfg, hex = /^#[0-9a-f]{6}$/i.exec(cfg.color || color || '')?.[0];
    name.textContent = title || cfg.title || T.ai;
    panel.setAttribute('aria-label', name.textContent);
    input.maxLength = cfg.limits?.len || 4000;
    status.textContent = `${T.ai} · ${ready ? 'online' : '…'}`;
    status.className = ready ? 'up' : '';
    if (hex) {
      const [r, g, b] = [1, 3, 5].map((i) => (parseInt(hex.slice(i, i + 2), 16) / 255) ** 2.2);
      host.style.setProperty('--c', hex);
      // white and black have the same contrast at luminance .179
      host.style.setProperty('--on', 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? '#111' : '#fff');
    }
    const unread = panel.hidden ? state.history.filter((m) => !m.me && m.seq > state.seen).length : 0;
    badge.hidden = !unread;
    badge.textContent = unread > 99 ? '99+' : unread;
    launcher.setAttribute('aria-label', (panel.hidden ? T.open : T.close) + (unread ? ` (${unread} ${T.unread})` : ''));
    launcher.setAttribute('aria-expanded', String(!panel.hidden));
    launcher.firstChild.firstChild.setAttribute('d', panel.hidden ? CHAT : DOWN);
  }
  function say(text) { notice.textContent = text || ''; notice.hidden = !text; if (text) live.textContent = text; }
  function toggle(open, focus = true) {
    panel.hidden = !open;
    if (open) { state.seen = state.cur; save(); connect(); scroll(true); }
    if (focus) (open ? input : launcher).focus();
    paint();
  }
  const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  function scroll(force) { if (force) log.scrollTop = log.scrollHeight; }
  const time = (iso) => { const d = new Date(iso); return isNaN(d) ? '' : d.toLocaleTimeString(lang, { hour: '2-digit', minute: '2-digit' }); };

  // Links and the [1] of known sources become elements, all else stays a text node.
  function rich(text, cites) {
    return text.split(/(https?:\/\/[^\s<>"]*[^\s<>".,;:!?)\]]|\[\d+\])/).map((part, i) => {
      if (i % 2 === 0) return part;
      if (part[0] !== '[') return el('a', { href: part, target: '_blank', rel: 'noopener noreferrer' }, part);
      const source = cites[part.slice(1, -1)];
      return source ? el('button', { type: 'button', class: 'ref', 'aria-label': `${T.sources} ${part}`,
        onclick: () => { source.open = true; source.firstChild.focus(); } }, part) : part;
    });
  }
  function row(m, role) {
    const cites = {};
    for (const c of m.citations || []) {
      const where = [c.document, c.page && `${T.page} ${c.page}`].filter(Boolean).join(', ');
      cites[c.n] = el('details', { 'data-role': 'citation' }, el('summary', {}, el('b', {}, `${c.n} `), where),
        ...(c.quote ? [el('blockquote', { dir: 'auto' }, c.quote)] : []));
    }
    const text = String(m.text ?? ''), list = Object.values(cites);
    const node = el('div', { class: m.me ? 'row me' : 'row', 'data-seq': m.seq, 'data-cid': m.cid },
      el('span', { class: 'sr' }, m.me ? T.you : name.textContent),
      el('div', { class: 'bubble', dir: 'auto', 'data-role': role }, ...(m.me ? [text] : rich(text, cites))));
    if (list.length) node.append(el('ol', { class: 'cites', 'aria-label': T.sources }, ...list.map((d) => el('li', {}, d))));
    const by = m.me ? [] : [m.agent === 'human' ? 'Team' : T.ai, m.reduced && T.reduced];
    if (m.at) node.append(el('div', { class: 'meta' }, [...by, time(m.at)].filter(Boolean).join(' · ')));
    return node;
  }
  const rowOf = (cid) => cid && [...log.children].find((n) => n.dataset.cid === cid);
  // What has no number yet (unsent, draft, typing) stays below the numbered messages.
  function place(node, numbered) {
    const stick = atEnd(), before = numbered ? [...log.children].find((n) => !n.dataset.seq && n !== node) : tail;
    before ? log.insertBefore(node, before) : log.append(node);
    scroll(stick);
  }
  const tail = el('div', { 'data-role': 'pending' }); // draft or typing dots, always last
  function pending(kind, text) {
    const stick = atEnd();
    clearTimeout(pending.timer);
    const dots = () => el('div', { class: 'row', 'aria-hidden': 'true' }, el('div', { class: 'bubble dots', 'data-role': 'typing' }, el('i'), el('i'), el('i')));
    tail.replaceChildren(...(kind === 'draft' ? [row({ text }, 'draft')] : kind === 'typing' ? [dots()] : []));
    if (kind) pending.timer = setTimeout(pending, 6e4); // its end may have been lost
    scroll(stick);
  }
  function showOwn(item) {
    const node = row({ ...item, me: 1 }, 'own');
    node.dataset.state = item.state;
    if (item.state !== 'sent') node.lastChild.textContent = item.state === 'failed' ? item.why || T.failed : T.queued;
    if (item.state === 'failed') {
      node.lastChild.append(el('button', { type: 'button', 'data-role': 'retry', onclick: () => { mark(item, 'queued'); transmit(item); } }, T.retry),
        el('button', { type: 'button', 'data-role': 'discard', onclick: () => { settle(item.cid); rowOf(item.cid)?.remove(); input.focus(); } }, T.drop));
    }
    const old = rowOf(item.cid);
    old ? old.replaceWith(node) : place(node);
  }
  function show(m) {
    const node = row(m, m.me ? 'own' : 'reply');
    if (m.me) { node.dataset.state = 'sent'; rowOf(m.cid)?.remove(); }
    place(node, true);
    return node;
  }

  // ---- messages of the visitor
  const uuid = () => '10000000-1000-4000-8000-100000000000'.replace(/[018]/g, (c) => // randomUUID is missing on plain http
    (+c ^ (crypto.getRandomValues(new Uint8Array(1))[0] & (15 >> (+c / 4)))).toString(16));
  function settle(cid) { outbox.delete(cid); write(OUT + cid); }
  function mark(item, to, why) { Object.assign(item, { state: to, why }); write(OUT + item.cid, item); showOwn(item); }
  function transmit(item) {
    const frame = { t: 'msg', cid: item.cid, text: item.text };
    if (new TextEncoder().encode(JSON.stringify(frame)).length > 16384) return mark(item, 'failed', T.long);
    ready ? tx(frame) : connect();
  }
  function send(text) {
    if (!(text = text.trim()) || final) return;
    const item = { cid: uuid(), text, at: new Date().toISOString(), state: 'queued' };
    outbox.set(item.cid, item);
    mark(item, 'queued');
    scroll(true);
    transmit(item);
  }

  // ---- the socket
  const address = new URL('socket', script.src);
  address.protocol = address.protocol.replace('http', 'ws');
  let ws, timer, quiet, asked = 0, tries = 0, ready = false, final = false;
  const tx = (frame) => { if (ws?.readyState === 1) ws.send(JSON.stringify(frame)); };
  function sync() {
    if (Date.now() - asked < 1000) return; // the rest of the same burst
    asked = Date.now();
    tx({ t: 'sync', cur: state.cur });
  }
  function lost(code) {
    ws = null; ready = false; asked = 0;
    clearTimeout(quiet); pending();
    if (code === 4401 || code === 4403) {
      final = true; input.disabled = button.disabled = human.disabled = true;
      say(T.denied);
    } else {
      if (tries > 1) say(T.lost);
      timer = setTimeout(connect, Math.random() * Math.min(3e4, 500 * 2 ** ++tries)); // full jitter
    }
    paint();
  }
  function connect() {
    if (ws || final) return;
    clearTimeout(timer);
    const own = ws = new WebSocket(address);
    const drop = (code) => { if (ws === own) { lost(code); own.close(); } };
    const alive = () => { clearTimeout(quiet); quiet = setTimeout(drop, 45e3); };
    alive();
    ws.onopen = () => tx({ t: 'hello', v: 1, key, sid: state.sid ||= read(NS)?.sid || null, cur: state.cur });
    ws.onclose = (e) => drop(e.code);
    ws.onmessage = (e) => {
      if (ws !== own) return;
      alive();
      let m;
      try { m = JSON.parse(e.data); } catch { return; }
      if (Object.hasOwn(on, m?.t)) on[m.t](m);
    };
  }
  const on = {
    ready(m) {
      if (state.epoch && state.epoch !== m.epoch) { // another history: the numbers no longer mean the same messages
        Object.assign(state, { cur: 0, seen: 0, history: [] });
        log.querySelectorAll('[data-seq]').forEach((n) => n.dataset.seq > 0 && n.remove());
        tx({ t: 'sync', cur: 0 });
      }
      Object.assign(state, { sid: m.sid, epoch: m.epoch, cfg: m.cfg || {} });
      save();
      ready = true;
      say(); greet(); paint();
      for (const item of outbox.values()) if (item.state === 'queued') transmit(item);
    },
    msg(m) {
      if (m.seq <= state.cur) return tx({ t: 'got', seq: state.cur });
      if (m.seq !== state.cur + 1) return sync();
      state.cur = m.seq; asked = 0;
      state.history = [...state.history, m].slice(-50);
      if (m.me) settle(m.cid);
      else { pending(); live.textContent = `${name.textContent}: ${m.text}`; }
      if (!panel.hidden) state.seen = m.seq;
      save(); show(m).classList.add('fresh'); paint();
      tx({ t: 'got', seq: m.seq });
    },
    ack(m) { const item = outbox.get(m.cid); settle(m.cid); if (item) showOwn({ ...item, state: 'sent' }); },
    err(m) { const item = outbox.get(m.cid); item ? mark(item, 'failed', m.message) : say(m.message); },
    draft(m) { pending('draft', m.text); },
    typing(m) { if (m.on) tail.firstChild || pending('typing'); else if (tail.querySelector('.dots')) pending(); },
    ping() { tries = 0; tx({ t: 'pong' }); }, // a connection counts as good once it has lived as long as a ping
  };

  // ---- wiring
  const greeting = el('div', { 'data-seq': '0' });
  function greet() { greeting.replaceChildren(row({ text: state.cfg.greeting || T.greeting }, 'greeting')); }
  const refresh = () => { button.disabled = final || !input.value.trim(); input.style.height = 'auto'; input.style.height = `${input.scrollHeight}px`; };
  const submit = () => { if (input.value.trim()) { send(input.value); input.value = ''; refresh(); } };
  form.onsubmit = (e) => { e.preventDefault(); submit(); input.focus(); };
  input.oninput = refresh;
  input.onkeydown = (e) => { if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); submit(); } };
  panel.onkeydown = (e) => { if (e.key === 'Escape' && !e.isComposing) { e.stopPropagation(); toggle(false); } };
  const ask = (text) => { toggle(true); send(text); };
  document.addEventListener('click', (e) => {
    const asks = e.target.closest?.('[data-secretary-ask]');
    if (asks) { e.preventDefault(); ask(asks.dataset.secretaryAsk || asks.textContent); }
  });
  const used = () => state.sid || outbox.size || !panel.hidden;
  const wake = () => { if (!document.hidden && used()) { tries = 0; connect(); } };
  addEventListener('online', wake);
  addEventListener('pageshow', wake);
  document.addEventListener('visibilitychange', wake);
  paint(); greet();
  log.append(greeting, tail);
  state.history.forEach(show);
  outbox.forEach(showOwn);
  attach();
  window.aiSecretary = { attach, ask, open: () => toggle(true), close: () => toggle(false) };
  if ('open' in script.dataset) toggle(true, false);
  else if (used()) connect();
})();
