// Builds dist/ from src/. The result depends on the sources and the lock file only, so that
// tools/check-console.sh can compare it with what is committed.
import { copyFileSync, mkdirSync } from 'node:fs';
import { build } from 'esbuild';

const out = process.env.CONSOLE_OUT ?? 'dist';
mkdirSync(out, { recursive: true });
await build({
  entryPoints: { app: 'src/main.js' },
  outdir: out,
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  legalComments: 'none',
  charset: 'ascii',
  logLevel: 'warning',
});
for (const name of ['index.html', 'icon.svg']) copyFileSync(`src/${name}`, `${out}/${name}`);
