// The page and its filters are in the fragment of the URL: #/live?kind=HelmRelease
import { useEffect, useState } from 'preact/hooks';

function read() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  return { page: path || 'overview', filters: Object.fromEntries(new URLSearchParams(query)) };
}

export function link(page, filters) {
  const query = new URLSearchParams(
    Object.entries(filters ?? {}).filter(([, value]) => value),
  ).toString();
  return `#/${page}${query ? `?${query}` : ''}`;
}

// Filters replace the entry of the history: what is typed is no page to go back to.
export function setFilters(page, filters) {
  history.replaceState(null, '', link(page, filters));
  dispatchEvent(new HashChangeEvent('hashchange'));
}

export function useLocation() {
  const [current, setCurrent] = useState(read);
  useEffect(() => {
    const update = () => setCurrent(read());
    addEventListener('hashchange', update);
    return () => removeEventListener('hashchange', update);
  }, []);
  return current;
}
