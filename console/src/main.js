// The console's frame: navigation, the page, and the form for the token.
import { render } from 'preact';
import { html } from 'htm/preact';
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import 'uplot/dist/uPlot.min.css';
import './style.css';
import { get, token } from './api.js';
import { link, useLocation } from './location.js';
import { Overview } from './pages/overview.js';
import { Live } from './pages/live.js';
import { Providers } from './pages/providers.js';
import { Alerts } from './pages/alerts.js';
import { DeadLetters } from './pages/dead.js';
import { Parked } from './pages/parked.js';
import { Audit } from './pages/audit.js';
import { Tester } from './pages/tester.js';
import { Trace } from './pages/trace.js';

const PAGES = {
  overview: ['Overview', Overview],
  live: ['Live', Live],
  providers: ['Providers', Providers],
  alerts: ['Alerts', Alerts],
  parked: ['Waiting', Parked],
  dead: ['Dead letters', DeadLetters],
  trace: ['Trace', Trace],
  tester: ['Tester', Tester],
  audit: ['Audit', Audit],
};

function SignIn({ problem, done }) {
  const field = useRef(null);
  useEffect(() => field.current.focus(), []);
  const submit = (event) => {
    event.preventDefault();
    token.set(field.current.value.trim());
    done();
  };
  return html`<main class="sign-in"><h1>Tidings console</h1>
    <form onSubmit=${submit}>
      <label for="token">Token</label>
      <input id="token" type="password" ref=${field} autocomplete="off" required
        aria-describedby=${problem ? 'token-problem' : undefined} />
      <button>Sign in</button>
      ${problem && html`<p id="token-problem" class="problem" role="alert">${problem}</p>`}
    </form>
    <p>A token of <code>console.tokens</code>, or of the Kubernetes API. This tab keeps it
      until it is closed.</p>
  </main>`;
}

function Frame({ session, fail, signOut }) {
  const { page, filters } = useLocation();
  const [title, Page] = Object.hasOwn(PAGES, page) ? PAGES[page] : PAGES.overview;
  useEffect(() => {
    document.title = `${title} · Tidings`;
  }, [title]);
  return html`<a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      document.getElementById('main').focus();
    }}>Skip to content</a>
    <header>
      <span class="brand">Tidings</span>
      <nav aria-label="Pages"><ul>
        ${Object.entries(PAGES).map(([name, [text]]) => html`<li key=${name}>
          <a href=${link(name)} aria-current=${name === page ? 'page' : undefined}>${text}</a>
        </li>`)}
      </ul></nav>
      <span class="who">${session.version} · ${session.name ?? 'no token'} (${session.role})</span>
      ${session.name && html`<button type="button" onClick=${signOut}>Sign out</button>`}
    </header>
    <main id="main" tabindex="-1"><h1>${title}</h1>
      <${Page} key=${title} filters=${filters} page=${page} fail=${fail}
        canOperate=${session.role === 'operate'} /></main>`;
}

function App() {
  const [session, setSession] = useState(null);
  const [problem, setProblem] = useState(null);
  const begin = useCallback(async () => {
    try {
      setSession(await get('session'));
      setProblem(null);
    } catch (error) {
      const needsToken = error.status === 401;
      // Without a token the form itself says what is needed.
      setProblem(needsToken && !token.get() ? '' : error.message);
      if (needsToken) token.clear();
    }
  }, []);
  useEffect(() => void begin(), [begin]);
  const fail = useCallback((error) => {
    if (error.status !== 401) return;
    token.clear();
    setProblem('The token is no longer valid.');
    setSession(null);
  }, []);
  const signOut = () => {
    token.clear();
    setProblem('');
    setSession(null);
  };
  if (session) return html`<${Frame} session=${session} fail=${fail} signOut=${signOut} />`;
  if (problem === null) return html`<main><p role="status">Loading…</p></main>`;
  return html`<${SignIn} problem=${problem} done=${begin} />`;
}

render(html`<${App} />`, document.getElementById('app'));
