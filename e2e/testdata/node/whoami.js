// Answers with its pid; writes who it is, through a path as nginx and others do.
const fs = require('fs');
const me = [process.getuid(), process.getgid(), process.getgroups().sort().join(','), process.env.HOME, process.env.USER].join(' ');
fs.writeFileSync('/dev/stdout', `who: ${me}\n`);
console.error(`instance: ${process.env.NODE_APP_INSTANCE}`);
require('http').createServer((req, res) => res.end(`${process.pid}\n`)).listen(process.env.PORT);
