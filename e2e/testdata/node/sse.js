// The streaming server that every tutorial has, with nothing but Node: a page, a
// counter once in INTERVAL ms at /stream, /error throws, all else is 404.
const http = require('http');
const interval = Number(process.env.INTERVAL || 1000);

http.createServer((req, res) => {
  console.log('接收到请求', req.method, req.url);
  if (req.url === '/error') {
    console.error('about to throw');
    setImmediate(() => { throw new Error('this is the error route'); });
    return;
  }
  if (req.url !== '/stream') {
    res.writeHead(404);
    return res.end('not here\n');
  }
  res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache', Connection: 'keep-alive' });
  res.flushHeaders(); // they would wait for the first event
  let n = 0;
  const timer = setInterval(() => res.write(`data: ChatGPT says: Hello, this is message ${++n}\n\n`), interval);
  req.on('close', () => clearInterval(timer));
}).listen(process.env.PORT, () => console.log('listening'));
