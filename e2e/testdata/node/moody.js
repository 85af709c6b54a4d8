// A server whose mood the test sets by files in its folder: it is ready when
// ready-<pid> is there, and its event loop hangs for ever once hang-<pid> is. It
// notes its pid in boots when it starts, and hangs-<pid> when it hangs.
const fs = require('fs');
const file = (what) => `${what}-${process.pid}`;
fs.appendFileSync('boots', `${process.pid}\n`);

require('http').createServer((req, res) => {
  res.setHeader('X-Instance', process.env.NODE_APP_INSTANCE || '0');
  switch (req.url) {
    case '/ready':
      res.statusCode = fs.existsSync(file('ready')) || process.env.READY ? 200 : 503;
      return res.end('not yet\n');
    case '/events':
      res.writeHead(200, { 'Content-Type': 'text/event-stream' });
      return res.end(process.env.READY ? 'event: tick\ndata: 1\n\n' : ':\n');
  }
  res.end(`${process.pid}\n`);
}).listen(process.env.PORT, process.env.HOST);

setInterval(() => {
  if (!fs.existsSync(file('hang'))) return;
  fs.writeFileSync(file('hangs'), '');
  for (;;);
}, 20);
