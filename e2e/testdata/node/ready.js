// Listens at once and is ready LATE ms later: it writes a file, then says so.
// Without LATE it never says it.
const fs = require('fs');
const server = require('http').createServer((req, res) => res.end(`${process.pid}\n`));
server.listen(process.env.PORT, () => {
  console.log(`instance ${process.env.NODE_APP_INSTANCE} listens`);
  if (!process.env.LATE) return;
  setTimeout(() => {
    fs.writeFileSync(`ready-${process.env.NODE_APP_INSTANCE}`, String(process.pid));
    process.send('ready');
  }, Number(process.env.LATE));
});
