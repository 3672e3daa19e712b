import java.io.BufferedReader;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Path;

/** A broker to restart: broker.py, driven over its standard input. */
final class OwnBroker implements AutoCloseable {
    final String uri;
    private final Process process;
    private final PrintStream orders;
    private final BufferedReader answers;

    OwnBroker() throws IOException {
        var script = Path.of(System.getenv("INTEROP"), "common", "broker.py").toString();
        process = new ProcessBuilder("python3", script).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        orders = new PrintStream(process.getOutputStream(), true);
        answers = process.inputReader();
        uri = "amqp://guest:guest@127.0.0.1:" + answer().substring("port ".length()) + "/%2f";
    }

    /** kill, stop or start; returns when that is done. */
    void order(String word) throws IOException {
        orders.println(word);
        answer();
    }

    private String answer() throws IOException {
        var line = answers.readLine();
        if (line == null) {
            throw new IOException("the broker did not start");
        }
        return line;
    }

    @Override
    public void close() throws InterruptedException {
        orders.close();
        process.waitFor();
    }
}
