// Hooks that read from the API.
import { useCallback, useEffect, useState } from 'preact/hooks';
import { get } from './api.js';

// Reads now, and again after `seconds`, while the page is visible.
export function usePolled(path, parameters, seconds, fail) {
  const [value, setValue] = useState(null);
  const [error, setError] = useState(null);
  const key = JSON.stringify(parameters ?? {});
  const read = useCallback(
    async (signal) => {
      try {
        setValue(await get(path, JSON.parse(key), { signal }));
        setError(null);
      } catch (problem) {
        if (problem.name === 'AbortError') return;
        setError(problem);
        fail(problem);
      }
    },
    [path, key],
  );
  useEffect(() => {
    const abort = new AbortController();
    read(abort.signal);
    const timer = setInterval(() => {
      if (!document.hidden) read(abort.signal);
    }, seconds * 1000);
    return () => {
      clearInterval(timer);
      abort.abort();
    };
  }, [read, seconds]);
  return { value, error, reload: read };
}

// An action that runs once at a time. `done` gets what it answered.
export function useAction(fail) {
  const [state, setState] = useState({});
  const run = useCallback(async (act, done) => {
    setState({ isRunning: true });
    try {
      const text = await done(await act((progress) => setState({ isRunning: true, progress })));
      setState({ text });
    } catch (error) {
      setState({ error });
      fail(error);
    }
  }, []);
  return { ...state, run };
}
