// Says 'ready' LATE ms after it listens; never if LATE is not set.
const server = require('http').createServer((req, res) => res.end(`${process.pid}\n`));
server.listen(process.env.PORT, () => {
  console.log(`instance ${process.env.NODE_APP_INSTANCE} listens`);
  if (process.env.LATE) setTimeout(() => process.send('ready'), Number(process.env.LATE));
});
