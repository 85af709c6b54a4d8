import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.time.LocalTime;
import java.time.format.DateTimeFormatter;
import java.util.concurrent.Executors;

/**
 * An endless stream with the fields id, event and data once in INTERVAL ms, as
 * WebFlux's Flux.interval writes it, with nothing but the JDK: java Sse.java
 */
public class Sse {
    public static void main(String[] args) throws Exception {
        long interval = Long.parseLong(System.getenv().getOrDefault("INTERVAL", "1000"));
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(System.getenv("PORT"))), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/stream", exchange -> {
            exchange.getResponseHeaders().set("Content-Type", "text/event-stream;charset=UTF-8");
            exchange.getResponseHeaders().set("Cache-Control", "no-cache");
            exchange.sendResponseHeaders(200, 0); // chunked
            try (var body = exchange.getResponseBody()) {
                for (long id = 0; ; id++) {
                    String time = LocalTime.now().format(DateTimeFormatter.ISO_TIME);
                    body.write(("id:" + id + "\nevent:periodic-event\ndata:SSE - " + time + "\n\n").getBytes(StandardCharsets.UTF_8));
                    body.flush();
                    Thread.sleep(interval);
                }
            } catch (IOException gone) {
                // the client left
            } catch (InterruptedException end) {
                Thread.currentThread().interrupt();
            }
        });
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(404, -1);
            exchange.close();
        });
        server.start();
        System.out.println("listening");
    }
}
