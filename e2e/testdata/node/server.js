// A server that knows nothing of gpm. It answers with its pid.
require('http').createServer((req, res) => res.end(`${process.pid}\n`)).listen(process.env.PORT);
