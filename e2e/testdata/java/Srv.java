import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

/** A server that knows nothing of gpm. It answers with its pid. */
public class Srv {
    public static void main(String[] args) throws Exception {
        byte[] pid = (ProcessHandle.current().pid() + "\n").getBytes();
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(System.getenv("PORT"))), 0);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, pid.length);
            try (var body = exchange.getResponseBody()) {
                body.write(pid);
            }
        });
        server.start();
    }
}
