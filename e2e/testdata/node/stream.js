// A streaming server as people write them: it knows nothing of gpm and handles
// no signal. GET /stream?n=20 is 20 numbered events and an end mark, /stream goes
// on for ever (or for MAX_AGE ms, and says so), from Last-Event-ID on.
// /heartbeat only lives: a comment every INTERVAL ms. All else: the pid.
const http = require('http');
const interval = Number(process.env.INTERVAL || 20);
const maxAge = Number(process.env.MAX_AGE || Infinity);

const server = http.createServer((req, res) => {
  const url = new URL(req.url, 'http://localhost');
  res.setHeader('X-Instance', process.env.NODE_APP_INSTANCE || '0');
  if (url.pathname === '/heartbeat') return stream(req, res, () => res.write(':\n'));
  if (url.pathname !== '/stream') return res.end(`${process.pid}\n`);
  const n = Number(url.searchParams.get('n')) || Infinity;
  const bye = Date.now() + maxAge * (0.7 + 0.3 * Math.random());
  let id = Number(req.headers['last-event-id']) || 0;
  stream(req, res, () => {
    if (id === n) return res.end('id: done\ndata: [DONE]\n\n');
    if (n === Infinity && Date.now() > bye) return res.end('retry: 100\nevent: reconnect\ndata: old age\n\n');
    id++;
    res.write(`id: ${id}\ndata: message ${id}\n\n`);
  });
});

// stream calls step every INTERVAL ms until the answer ends or the client leaves.
function stream(req, res, step) {
  res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  res.write(`event: hello\ndata: {"pid":${process.pid}}\n\n`);
  const timer = setInterval(step, interval);
  res.on('close', () => clearInterval(timer));
}

server.keepAliveTimeout = Number(process.env.KEEP_ALIVE || 5000); // Node's own default
server.listen(process.env.PORT);
