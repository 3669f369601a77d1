// What Jedis sees of the server at a port, as one line of JSON.

import com.google.gson.Gson;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import redis.clients.jedis.AbstractPipeline;
import redis.clients.jedis.AbstractTransaction;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.JedisPubSub;
import redis.clients.jedis.Protocol;
import redis.clients.jedis.RedisClient;
import redis.clients.jedis.RedisProtocol;
import redis.clients.jedis.Response;
import redis.clients.jedis.StreamEntryID;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.params.ScanParams;
import redis.clients.jedis.params.SetParams;
import redis.clients.jedis.params.XAddParams;
import redis.clients.jedis.params.XReadGroupParams;
import redis.clients.jedis.resps.StreamEntry;
import redis.clients.jedis.resps.Tuple;

public class Client {
    private static final String SCRIPT =
        "redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('LRANGE', KEYS[1], 0, -1)";

    private final RedisClient client;
    private final Map<String, Object> saw = new TreeMap<>();

    private Client(RedisClient client) {
        this.client = client;
    }

    public static void main(String[] args) throws Exception {
        var config = DefaultJedisClientConfig.builder();
        if (!args[1].equals("default")) {
            config.protocol(args[1].equals("3") ? RedisProtocol.RESP3 : RedisProtocol.RESP2);
        }
        var server = new HostAndPort("127.0.0.1", Integer.parseInt(args[0]));
        try (var client = args[1].equals("default")
                ? RedisClient.create(server)
                : RedisClient.builder().hostAndPort(server).clientConfig(config.build()).build()) {
            var program = new Client(client);
            program.saw.put("client", "jedis");
            program.handshake();
            program.values();
            program.pipeline();
            program.transaction();
            program.conflict();
            program.blocking();
            program.messages();
            program.script();
            program.scan();
            program.stream();
            System.out.println(new Gson().toJson(program.saw));
        }
    }

    private String text(Protocol.Command command, String... args) {
        return new String((byte[]) client.sendCommand(command, args), StandardCharsets.UTF_8);
    }

    private String refusal(Runnable operation) {
        try {
            operation.run();
        } catch (JedisDataException error) {
            return error.getMessage();
        }
        throw new IllegalStateException("it was not refused");
    }

    private void handshake() {
        saw.put("ping", client.ping());
        for (String field : text(Protocol.Command.CLIENT, "INFO").trim().split(" ")) {
            if (field.startsWith("resp=")) {
                saw.put("resp", field.substring(5));
            }
        }
        client.flushAll();
    }

    private void values() {
        byte[] binary = new byte[256];
        for (int i = 0; i < 256; i++) {
            binary[i] = (byte) i;
        }
        client.set("binary".getBytes(), binary);
        saw.put("binary", HexFormat.of().formatHex(client.get("binary".getBytes())));
        client.set("large", "x".repeat(100_000), SetParams.setParams().ex(3600));
        saw.put("large", client.get("large").length());
        saw.put("expires", client.ttl("large") > 3540);
        saw.put("missing", client.get("missing") == null);
        saw.put("added", client.hset("hash", Map.of("a", "1", "b", "2")));
        saw.put("hash", new TreeMap<>(client.hgetAll("hash")));
        saw.put("scores", client.zadd("zset", Map.of("m", 1.5, "n", 2.0)));
        saw.put("zset", client.zrangeWithScores("zset", 0, -1).stream().map(Tuple::toString).toList());
        saw.put("wrong_type", refusal(() -> client.incr("hash")));
    }

    private void pipeline() {
        List<Response<Long>> replies = new ArrayList<>();
        try (AbstractPipeline pipe = client.pipelined()) {
            for (int i = 0; i < 1000; i++) {
                replies.add(pipe.incr("counter"));
            }
        }
        saw.put("pipeline", List.of(replies.size(), replies.stream().mapToLong(Response::get).sum()));
    }

    private void transaction() {
        try (AbstractTransaction multi = client.multi()) {
            multi.rpush("list", "a", "b");
            multi.incrBy("counter", 5);
            multi.get("counter");
            saw.put("transaction", multi.exec());
        }
    }

    private void conflict() {
        List<Object> seen = new ArrayList<>();
        for (boolean other : new boolean[] {true, false}) {
            try (AbstractTransaction watching = client.transaction(false)) {
                watching.watch("counter");
                if (other) {
                    client.set("counter", "theirs");
                }
                watching.multi();
                watching.set("counter", "mine");
                List<Object> done = watching.exec();
                seen.add(done == null ? "nil" : done);
                seen.add(client.get("counter"));
            }
        }
        saw.put("conflict", seen);
    }

    /** Another connection writes once the server shows a client with this command. */
    private Thread later(String command, Runnable write) {
        var thread = new Thread(() -> {
            while (!text(Protocol.Command.CLIENT, "LIST").contains("cmd=" + command)) {
                Thread.onSpinWait();
            }
            write.run();
        });
        thread.setDaemon(true);
        thread.start();
        return thread;
    }

    private void blocking() throws InterruptedException {
        Thread writer = later("blpop", () -> client.rpush("queue", "job"));
        saw.put("blpop", client.blpop(10, "empty", "queue"));
        writer.join();
        saw.put("blpop_nothing", client.blpop(0.1, "queue") == null);
    }

    private void messages() throws InterruptedException {
        var ready = new CountDownLatch(2);
        var all = new CountDownLatch(200);
        List<String> got = new ArrayList<>();
        List<String> matched = new ArrayList<>();
        class Listener extends JedisPubSub {
            @Override
            public void onSubscribe(String channel, int subscriptions) {
                ready.countDown();
            }

            @Override
            public void onPSubscribe(String pattern, int subscriptions) {
                ready.countDown();
            }

            @Override
            public void onMessage(String channel, String message) {
                got.add(channel + "/" + message);
                all.countDown();
            }

            @Override
            public void onPMessage(String pattern, String channel, String message) {
                matched.add(pattern + "/" + channel + "/" + message);
                all.countDown();
            }
        }
        Listener channels = new Listener();
        Listener patterns = new Listener();
        var threads = List.of(
            new Thread(() -> client.subscribe(channels, "news")),
            new Thread(() -> client.psubscribe(patterns, "new?")));
        for (Thread thread : threads) {
            thread.setDaemon(true);
            thread.start();
        }
        check(ready);
        long receivers = 0;
        for (int i = 0; i < 100; i++) {
            receivers += client.publish("news", Integer.toString(i));
        }
        check(all);
        channels.unsubscribe();
        patterns.punsubscribe();
        for (Thread thread : threads) {
            thread.join();
        }
        saw.put("receivers", receivers);
        saw.put("messages", String.join(" ", got));
        saw.put("matched", String.join(" ", matched));
    }

    private static void check(CountDownLatch latch) throws InterruptedException {
        if (!latch.await(20, TimeUnit.SECONDS)) {
            throw new IllegalStateException(latch.getCount() + " did not come");
        }
    }

    private void script() {
        client.sendCommand(Protocol.Command.SCRIPT, "FLUSH");
        String digest = sha1(SCRIPT);
        List<String> keys = List.of("scripted");
        saw.put("noscript", refusal(() -> client.evalsha(digest, keys, List.of("x"))));
        Object first = client.eval(SCRIPT, keys, List.of("one"));
        saw.put("script", Arrays.asList(first, client.evalsha(digest, keys, List.of("two"))));
    }

    private static String sha1(String text) {
        try {
            var digest = java.security.MessageDigest.getInstance("SHA-1");
            return HexFormat.of().formatHex(digest.digest(text.getBytes(StandardCharsets.UTF_8)));
        } catch (java.security.NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }

    private void scan() {
        try (AbstractPipeline pipe = client.pipelined()) {
            for (int i = 0; i < 1000; i++) {
                pipe.set("scanned:" + i, Integer.toString(i));
            }
        }
        var found = new TreeSet<String>();
        var page = new ScanParams().match("scanned:*").count(100);
        String cursor = ScanParams.SCAN_POINTER_START;
        do {
            var result = client.scan(cursor, page);
            found.addAll(result.getResult());
            cursor = result.getCursor();
        } while (!cursor.equals(ScanParams.SCAN_POINTER_START));
        saw.put("scanned", found.size());
    }

    private void stream() throws InterruptedException {
        client.xgroupCreate("stream", "group", StreamEntryID.XGROUP_LAST_ENTRY, true);
        var id = new StreamEntryID("7-1");
        Thread writer = later("xreadgroup", () ->
            client.xadd("stream", Map.of("field", "value"), XAddParams.xAddParams().id(id)));
        var read = client.xreadGroup("group", "consumer", XReadGroupParams.xReadGroupParams().count(10).block(10_000),
            Map.of("stream", StreamEntryID.XREADGROUP_UNDELIVERED_ENTRY));
        writer.join();
        StreamEntry entry = read.get(0).getValue().get(0);
        saw.put("stream", List.of(read.get(0).getKey(), entry.getID().toString(), entry.getFields()));
        long before = client.xpending("stream", "group").getTotal();
        long acknowledged = client.xack("stream", "group", id);
        saw.put("pending", List.of(before, acknowledged, client.xpending("stream", "group").getTotal()));
    }
}
