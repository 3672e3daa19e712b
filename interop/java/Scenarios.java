import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.CancelCallback;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.Recoverable;
import com.rabbitmq.client.RecoveryListener;
import com.rabbitmq.client.RpcClient;
import com.rabbitmq.client.RpcClientParams;
import com.rabbitmq.client.RpcServer;
import com.rabbitmq.client.ShutdownSignalException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The tutorials and everyday features, through the RabbitMQ Java client; recovery of connection and topology too. */
public final class Scenarios {
    private static final int WAIT_SECONDS = 10;
    private static final CancelCallback IGNORE_CANCEL = tag -> {};

    private interface Scenario {
        void run(Connection connection) throws Exception;
    }

    public static void main(String[] arguments) {
        var scenarios = new LinkedHashMap<String, Scenario>();
        scenarios.put("work queue", Scenarios::workQueue);
        scenarios.put("publish/subscribe", Scenarios::publishSubscribe);
        scenarios.put("routing", Scenarios::routing);
        scenarios.put("topics", Scenarios::topics);
        scenarios.put("RPC", Scenarios::rpc);
        scenarios.put("publisher confirms", Scenarios::confirms);
        scenarios.put("mandatory return", Scenarios::mandatoryReturn);
        scenarios.put("dead letters and TTL", Scenarios::deadLetters);
        scenarios.put("priority", Scenarios::priority);
        scenarios.put("headers exchange", Scenarios::headersExchange);
        scenarios.put("get", Scenarios::get);
        scenarios.put("nack and requeue", Scenarios::nackRequeue);
        scenarios.put("unsettled messages return", Scenarios::unsettledReturn);
        scenarios.put("exclusive and auto-delete", Scenarios::exclusiveAutoDelete);
        scenarios.put("properties and bodies", Scenarios::properties);
        scenarios.put("errors", Scenarios::errors);
        scenarios.put("transactions", Scenarios::transactions);
        scenarios.put("length limits", Scenarios::lengthLimits);
        scenarios.put("bound and alternate exchanges", Scenarios::boundExchanges);
        scenarios.put("consumer cancelled by broker", Scenarios::cancelledByBroker);

        int failed = 0;
        for (var entry : scenarios.entrySet()) {
            failed += attempt(entry.getKey(), () -> {
                try (var connection = connect(System.getenv("AMQP_URL"), false)) {
                    entry.getValue().run(connection);
                }
                return null;
            });
        }
        int total = scenarios.size();
        if (System.getenv("PILLARBOX_BIN") != null) {
            total += 1;
            failed += attempt("recovery", () -> {
                recovery();
                return null;
            });
        } else {
            System.out.println("skip recovery: the broker was started by somebody else");
        }
        System.out.printf("%d passed, %d failed%n", total - failed, failed);
        System.exit(failed == 0 ? 0 : 1);
    }

    /** How many failed: 0 or 1. */
    private static int attempt(String name, Callable<Void> scenario) {
        try {
            scenario.call();
            System.out.println("ok " + name);
            return 0;
        } catch (Exception | AssertionError failure) {
            failure.printStackTrace(System.out);
            System.out.println("FAIL " + name + ": " + failure.toString().replaceAll("\\s+", " "));
            return 1;
        }
    }

    private static Connection connect(String uri, boolean recovers) throws Exception {
        var factory = new ConnectionFactory();
        factory.setUri(uri);
        factory.setAutomaticRecoveryEnabled(recovers);
        factory.setNetworkRecoveryInterval(300);
        return factory.newConnection();
    }

    private static void workQueue(Connection connection) throws Exception {
        var publisher = connection.createChannel();
        var queue = unique("work");
        publisher.queueDeclare(queue, true, false, false, null);
        for (int task = 0; task < 10; task++) {
            publisher.basicPublish("", queue, MessageProperties.PERSISTENT_TEXT_PLAIN, bytes("" + task));
        }
        var busy = connection.createChannel();
        busy.basicQos(1);
        expect(text(next(consume(busy, queue, false))), "0");
        var worker = connection.createChannel();
        worker.basicQos(1);
        var deliveries = consume(worker, queue, false);
        for (int task = 1; task < 10; task++) {
            var delivery = next(deliveries);
            expect(text(delivery), "" + task);
            worker.basicAck(delivery.getEnvelope().getDeliveryTag(), false);
        }
        publisher.queueDelete(queue);
    }

    private static void publishSubscribe(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var exchange = ownExchange(channel, BuiltinExchangeType.FANOUT);
        var queues = List.of(ownQueue(channel, null), ownQueue(channel, null));
        for (var queue : queues) {
            channel.queueBind(queue, exchange, "");
        }
        channel.basicPublish(exchange, "ignored", null, bytes("to all"));
        for (var queue : queues) {
            expect(collect(channel, queue, 1), List.of("to all"));
        }
    }

    private static void routing(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var exchange = ownExchange(channel, BuiltinExchangeType.DIRECT);
        var queue = ownQueue(channel, null);
        for (var severity : List.of("warning", "error")) {
            channel.queueBind(queue, exchange, severity);
        }
        for (var severity : List.of("info", "warning", "error")) {
            channel.basicPublish(exchange, severity, null, bytes(severity));
        }
        expect(collect(channel, queue, 2), List.of("warning", "error"));
        channel.queueUnbind(queue, exchange, "warning");
        for (var severity : List.of("warning", "error")) {
            channel.basicPublish(exchange, severity, null, bytes(severity));
        }
        expect(collect(channel, queue, 1), List.of("error"));
    }

    private static void topics(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var exchange = ownExchange(channel, BuiltinExchangeType.TOPIC);
        var keys = List.of("kern.critical", "kern.info", "cron.critical", "kern", "kern.disk.critical");
        var matching = Map.of(
            "#", keys,
            "kern.*", List.of("kern.critical", "kern.info"),
            "*.critical", List.of("kern.critical", "cron.critical"),
            "kern.#", List.of("kern.critical", "kern.info", "kern", "kern.disk.critical"));
        var queues = new LinkedHashMap<String, String>();
        for (var pattern : matching.keySet()) {
            queues.put(pattern, ownQueue(channel, null));
            channel.queueBind(queues.get(pattern), exchange, pattern);
        }
        for (var key : keys) {
            channel.basicPublish(exchange, key, null, bytes(key));
        }
        for (var entry : matching.entrySet()) {
            expect(collect(channel, queues.get(entry.getKey()), entry.getValue().size()), entry.getValue());
        }
    }

    private static void rpc(Connection connection) throws Exception {
        var requests = ownQueue(connection.createChannel(), null);
        var server = new RpcServer(connection.createChannel(), requests) {
            @Override
            public byte[] handleCall(byte[] request, AMQP.BasicProperties reply) {
                int number = Integer.parseInt(new String(request, StandardCharsets.UTF_8));
                return bytes("" + number * number);
            }
        };
        var loop = new Thread(() -> {
            try {
                server.mainloop();
            } catch (Exception end) {
                // The connection was closed below.
            }
        });
        loop.setDaemon(true);
        loop.start();
        // Answers come by the direct reply-to pseudo-queue.
        var parameters = new RpcClientParams().channel(connection.createChannel()).exchange("").routingKey(requests)
            .timeout(WAIT_SECONDS * 1000);
        expect(new RpcClient(parameters).stringCall("12"), "144");
    }

    private static void confirms(Connection connection) throws Exception {
        var channel = connection.createChannel();
        channel.confirmSelect();
        var queue = ownQueue(channel, null);
        for (int number = 0; number < 1000; number++) {
            channel.basicPublish("", queue, MessageProperties.PERSISTENT_BASIC, bytes("" + number));
        }
        channel.waitForConfirmsOrDie(WAIT_SECONDS * 1000L);
        expect(channel.messageCount(queue), 1000L);
    }

    private static void mandatoryReturn(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var returned = new LinkedBlockingQueue<String>();
        channel.addReturnListener(message ->
            returned.add(message.getReplyCode() + " " + message.getReplyText() + " " + text(message.getBody())));
        channel.basicPublish("", unique("nowhere"), true, null, bytes("lost"));
        expect(returned.poll(WAIT_SECONDS, TimeUnit.SECONDS), "312 NO_ROUTE lost");
    }

    private static void deadLetters(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var exchange = ownExchange(channel, BuiltinExchangeType.FANOUT);
        var dead = ownQueue(channel, null);
        channel.queueBind(dead, exchange, "");
        var source = ownQueue(channel, Map.of("x-dead-letter-exchange", exchange, "x-message-ttl", 100));
        var deaths = consume(channel, dead, true);
        channel.basicPublish("", source, null, bytes("late"));
        var deathsOfLate = (List<?>) next(deaths).getProperties().getHeaders().get("x-death");
        var death = (Map<?, ?>) deathsOfLate.get(0);
        expect(death.get("queue").toString() + " " + death.get("reason") + " " + death.get("count"), source + " expired 1");
        channel.basicPublish("", source, null, bytes("bad"));
        channel.basicReject(take(channel, source).getEnvelope().getDeliveryTag(), false);
        expect(next(deaths).getProperties().getHeaders().get("x-first-death-reason").toString(), "rejected");
    }

    private static void priority(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var queue = ownQueue(channel, Map.of("x-max-priority", 5));
        for (int level : new int[] {0, 5, 3, 9}) {
            channel.basicPublish("", queue, new AMQP.BasicProperties.Builder().priority(level).build(), bytes("" + level));
        }
        expect(collect(channel, queue, 4), List.of("5", "9", "3", "0"));
    }

    private static void headersExchange(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var exchange = ownExchange(channel, BuiltinExchangeType.HEADERS);
        var all = ownQueue(channel, null);
        var any = ownQueue(channel, null);
        channel.queueBind(all, exchange, "", Map.of("x-match", "all", "format", "pdf", "pages", 2));
        channel.queueBind(any, exchange, "", Map.of("x-match", "any", "format", "pdf", "pages", 2));
        Map<String, Map<String, Object>> messages = new LinkedHashMap<>();
        messages.put("both", Map.of("format", "pdf", "pages", 2, "other", true));
        messages.put("one", Map.of("format", "pdf", "pages", 3));
        messages.put("none", Map.of("format", "zip"));
        for (var message : messages.entrySet()) {
            var properties = new AMQP.BasicProperties.Builder().headers(message.getValue()).build();
            channel.basicPublish(exchange, "", properties, bytes(message.getKey()));
        }
        expect(collect(channel, any, 2), List.of("both", "one"));
        expect(collect(channel, all, 1), List.of("both"));
        expect(channel.messageCount(all), 0L);
    }

    private static void get(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var queue = ownQueue(channel, null);
        expect(channel.basicGet(queue, true), null);
        publishAll(channel, queue, "0", "1", "2");
        var message = take(channel, queue);
        expect(text(message.getBody()) + " " + message.getMessageCount() + " " + message.getEnvelope().isRedeliver(), "0 2 false");
        expect(channel.queuePurge(queue).getMessageCount(), 2);
        expect(channel.queueDelete(queue).getMessageCount(), 0);
    }

    private static void nackRequeue(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var queue = ownQueue(channel, null);
        publishAll(channel, queue, "0", "1", "2");
        take(channel, queue);
        take(channel, queue);
        channel.basicNack(take(channel, queue).getEnvelope().getDeliveryTag(), true, true);
        var again = List.of(take(channel, queue), take(channel, queue), take(channel, queue));
        for (int number = 0; number < 3; number++) {
            var message = again.get(number);
            expect(text(message.getBody()) + " " + message.getEnvelope().isRedeliver(), number + " true");
        }
        channel.basicNack(again.get(0).getEnvelope().getDeliveryTag(), false, false);
        channel.basicAck(again.get(1).getEnvelope().getDeliveryTag(), false);
        channel.basicReject(again.get(2).getEnvelope().getDeliveryTag(), true);
        expect(collect(channel, queue, 1), List.of("2"));
    }

    private static void unsettledReturn(Connection connection) throws Exception {
        var keeper = connection.createChannel();
        var queue = ownQueue(keeper, null);
        publishAll(keeper, queue, "0", "1", "2");
        keeper.messageCount(queue);
        var other = connection.createChannel();
        take(other, queue);
        take(other, queue);
        other.close();
        var deliveries = consume(keeper, queue, true);
        for (int number = 0; number < 3; number++) {
            var delivery = next(deliveries);
            expect(text(delivery) + " " + delivery.getEnvelope().isRedeliver(), number + " " + (number < 2));
        }
    }

    private static void exclusiveAutoDelete(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var queue = ownQueue(channel, null);
        try (var stranger = connect(System.getenv("AMQP_URL"), false)) {
            expectClosed(stranger, 405, other -> other.queueDeclarePassive(queue));
        }
        var shared = unique("auto");
        channel.queueDeclare(shared, false, false, true, null);
        channel.basicCancel(channel.basicConsume(shared, (tag, delivery) -> {}, IGNORE_CANCEL));
        expectClosed(connection, 404, other -> other.queueDeclarePassive(shared));
    }

    private static void properties(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var queue = ownQueue(channel, null);
        var when = new Date(1_700_000_000_000L);
        var headers = new LinkedHashMap<String, Object>();
        headers.put("int", 7);
        headers.put("long", 1L << 40);
        headers.put("short", (short) -300);
        headers.put("byte", (byte) -5);
        headers.put("float", 1.5f);
        headers.put("double", 2.5);
        headers.put("yes", true);
        headers.put("none", null);
        headers.put("when", when);
        headers.put("decimal", new java.math.BigDecimal("123.45"));
        headers.put("list", List.of(1, 2L));
        headers.put("table", Map.of("inner", Map.of("deep", 3)));
        var sent = new AMQP.BasicProperties("text/plain", "utf-8", headers, 1, 3, "c", "r", "60000", "m", when, "t", "guest", "a", null);
        for (int size : new int[] {0, 1, 1024 * 1024 + 3}) {
            var body = new byte[size];
            Arrays.fill(body, (byte) 'p');
            channel.basicPublish("", queue, sent, body);
            var found = take(channel, queue);
            expect(found.getProps(), sent);
            expect(Arrays.equals(found.getBody(), body), true);
        }
    }

    private static void errors(Connection connection) throws Exception {
        var name = unique("errors");
        expectClosed(connection, 404, channel -> channel.queueDeclarePassive(name));
        expectClosed(connection, 404, channel -> channel.exchangeDeclarePassive(name));
        var keeper = connection.createChannel();
        keeper.queueDeclare(name, false, true, false, null);
        expectClosed(connection, 406, channel -> channel.queueDeclare(name, false, true, false, Map.of("x-max-length", 1)));
        expectClosed(connection, 403, channel -> channel.queueDeclare("amq.mine", false, true, false, null));
        expectClosed(connection, 406, channel -> {
            channel.basicAck(99, false);
            channel.queueDeclarePassive(name);
        });
        keeper.queueDeclarePassive(name);
    }

    private static void transactions(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var queue = ownQueue(channel, null);
        channel.txSelect();
        publishAll(channel, queue, "undone");
        channel.txRollback();
        publishAll(channel, queue, "done");
        channel.txCommit();
        var message = take(channel, queue);
        expect(text(message.getBody()), "done");
        channel.basicAck(message.getEnvelope().getDeliveryTag(), false);
        channel.txCommit();
        expect(channel.basicGet(queue, true), null);
    }

    private static void lengthLimits(Connection connection) throws Exception {
        var channel = connection.createChannel();
        channel.confirmSelect();
        var oldestGoes = ownQueue(channel, Map.of("x-max-length", 2));
        publishAll(channel, oldestGoes, "0", "1", "2");
        expect(channel.waitForConfirms(WAIT_SECONDS * 1000L), true);
        expect(collect(channel, oldestGoes, 2), List.of("1", "2"));
        var refusing = ownQueue(channel, Map.of("x-max-length", 1, "x-overflow", "reject-publish"));
        publishAll(channel, refusing, "in");
        expect(channel.waitForConfirms(WAIT_SECONDS * 1000L), true);
        publishAll(channel, refusing, "over");
        expect(channel.waitForConfirms(WAIT_SECONDS * 1000L), false);
    }

    private static void boundExchanges(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var rest = ownExchange(channel, BuiltinExchangeType.FANOUT);
        var back = ownExchange(channel, BuiltinExchangeType.TOPIC);
        var front = unique("front");
        channel.exchangeDeclare(front, BuiltinExchangeType.DIRECT, false, true, Map.of("alternate-exchange", rest));
        channel.exchangeBind(back, front, "a.b");
        var queue = ownQueue(channel, null);
        var others = ownQueue(channel, null);
        channel.queueBind(queue, back, "a.*");
        channel.queueBind(others, rest, "");
        channel.basicPublish(front, "a.b", null, bytes("matched"));
        channel.basicPublish(front, "x", null, bytes("unmatched"));
        expect(collect(channel, queue, 1), List.of("matched"));
        expect(collect(channel, others, 1), List.of("unmatched"));
    }

    private static void cancelledByBroker(Connection connection) throws Exception {
        var channel = connection.createChannel();
        var queue = unique("gone");
        channel.queueDeclare(queue, false, false, false, null);
        var cancelled = new LinkedBlockingQueue<String>();
        channel.basicConsume(queue, false, "tag", (tag, delivery) -> {}, cancelled::add);
        connection.createChannel().queueDelete(queue);
        expect(cancelled.poll(WAIT_SECONDS, TimeUnit.SECONDS), "tag");
    }

    /** The client sets up exchanges, queues, bindings and consumers again by itself after each restart. */
    private static void recovery() throws Exception {
        try (var broker = new OwnBroker(); var connection = connect(broker.uri, true)) {
            var recovered = new LinkedBlockingQueue<Boolean>();
            ((Recoverable) connection).addRecoveryListener(new RecoveryListener() {
                @Override
                public void handleRecovery(Recoverable recoverable) {
                    recovered.add(true);
                }

                @Override
                public void handleRecoveryStarted(Recoverable recoverable) {}
            });
            var channel = connection.createChannel();
            channel.confirmSelect();
            channel.queueDeclare("lasting", true, false, false, null);
            var exchange = unique("transient");
            channel.exchangeDeclare(exchange, "topic", false, false, null);
            var transientQueue = channel.queueDeclare().getQueue();
            channel.queueBind(transientQueue, exchange, "a.#");
            var deliveries = consume(channel, transientQueue, true);
            for (var end : List.of("kill", "stop")) {
                channel.basicPublish("", "lasting", MessageProperties.PERSISTENT_BASIC, bytes(end));
                channel.waitForConfirmsOrDie(WAIT_SECONDS * 1000L);
                broker.order(end);
                broker.order("start");
                expect(recovered.poll(30, TimeUnit.SECONDS), true);
                channel.basicPublish(exchange, "a.b", null, bytes("after " + end));
                expect(text(next(deliveries)), "after " + end);
            }
            expect(collect(channel, "lasting", 2), List.of("kill", "stop"));
        }
    }

    private interface ChannelAction {
        void run(Channel channel) throws Exception;
    }

    /** The action makes the broker close the channel with this code. */
    private static void expectClosed(Connection connection, int code, ChannelAction action) throws Exception {
        try {
            action.run(connection.createChannel());
        } catch (Exception failure) {
            var signal = failure instanceof ShutdownSignalException ? failure : failure.getCause();
            if (signal instanceof ShutdownSignalException closed && closed.getReason() instanceof AMQP.Channel.Close close) {
                expect(close.getReplyCode(), code);
                return;
            }
            throw failure;
        }
        throw new AssertionError("no close with " + code);
    }

    private static String unique(String name) {
        return name + "-" + UUID.randomUUID();
    }

    private static String ownQueue(Channel channel, Map<String, Object> arguments) throws Exception {
        return channel.queueDeclare("", false, true, false, arguments).getQueue();
    }

    private static String ownExchange(Channel channel, BuiltinExchangeType type) throws Exception {
        var name = unique(type.getType());
        channel.exchangeDeclare(name, type, false, true, null);
        return name;
    }

    private static void publishAll(Channel channel, String queue, String... bodies) throws Exception {
        for (var body : bodies) {
            channel.basicPublish("", queue, null, bytes(body));
        }
    }

    private static BlockingQueue<Delivery> consume(Channel channel, String queue, boolean autoAck) throws Exception {
        var deliveries = new LinkedBlockingQueue<Delivery>();
        channel.basicConsume(queue, autoAck, (tag, delivery) -> deliveries.add(delivery), IGNORE_CANCEL);
        return deliveries;
    }

    private static Delivery next(BlockingQueue<Delivery> deliveries) throws Exception {
        var delivery = deliveries.poll(WAIT_SECONDS, TimeUnit.SECONDS);
        if (delivery == null) {
            throw new AssertionError("no delivery within " + WAIT_SECONDS + " s");
        }
        return delivery;
    }

    /** The next messages of a queue, settled at once. */
    private static List<String> collect(Channel channel, String queue, int count) throws Exception {
        var deliveries = new LinkedBlockingQueue<Delivery>();
        var tag = channel.basicConsume(queue, true, (ignored, delivery) -> deliveries.add(delivery), IGNORE_CANCEL);
        var found = new ArrayList<String>();
        while (found.size() < count) {
            found.add(text(next(deliveries)));
        }
        channel.basicCancel(tag);
        return found;
    }

    private static GetResponse take(Channel channel, String queue) throws Exception {
        var message = channel.basicGet(queue, false);
        if (message == null) {
            throw new AssertionError("the queue is empty");
        }
        return message;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    private static String text(Delivery delivery) {
        return text(delivery.getBody());
    }

    private static void expect(Object found, Object expected) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError("found " + found + ", expected " + expected);
        }
    }
}
