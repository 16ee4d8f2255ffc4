import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * The bench's client process with Apache RocketMQ's own Java client. Same lines and same loops as the Python one
 * (load/__main__.py, load/job.py, load/loops.py): jobs as JSON on the standard input, outcomes on the output.
 */
public class BenchClient {
    static final String[] KEYS = new String[100_000];
    static final int PULL_COUNT = 1_000;
    static final long SPIN_NANOS = 150_000;
    static final long QUIET_MILLIS = 10_000;
    static final AtomicLong INSTANCES = new AtomicLong();

    static {
        // Made ahead: formatting keys is the program's work, not the queue's.
        Arrays.setAll(KEYS, number -> String.format("order-%06d", number));
    }

    /** A load loop: prepared when constructed, measured when run. */
    interface Loop {
        JSONObject run() throws Exception;

        void close();
    }

    /** What one sender does between start and end; returns how many messages it sent. */
    interface Stretch {
        long run(DefaultMQProducer producer, int first, Histogram latency) throws Exception;
    }

    public static void main(String[] args) throws Exception {
        PrintStream answers = System.out;
        System.setOut(System.err);
        BufferedReader jobs = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        answers.println("up");
        String line;
        while ((line = jobs.readLine()) != null) {
            Loop loop = null;
            try {
                loop = prepare(JSON.parseObject(line));
                answers.println("ready");
                jobs.readLine();
                answers.println(loop.run().toJSONString());
            } catch (Throwable error) {
                error.printStackTrace();
                answers.println(new JSONObject().fluentPut("error", error.toString()).toJSONString());
            } finally {
                if (loop != null) {
                    loop.close();
                }
            }
        }
        System.exit(0);
    }

    static Loop prepare(JSONObject job) throws Exception {
        switch (job.getString("work")) {
            case "send":
                return new Sending(job, sendOneByOne(job));
            case "stream":
                return new Sending(job, stream(job));
            case "batch":
                return new Sending(job, batch(job));
            case "paced":
                return new Sending(job, paced(job));
            case "receive":
                return new Receiving(job);
            case "consume":
                return new Consuming(job);
            case "pull":
                return new Pulling(job);
            default:
                throw new IllegalArgumentException("no loop " + job.getString("work"));
        }
    }

    static String address(JSONObject job) {
        JSONObject address = job.getJSONObject("address");
        return address.getString(address.containsKey("namesrv_tcp") ? "namesrv_tcp" : "namesrv");
    }

    static JSONObject options(JSONObject job) {
        return job.getJSONObject("options");
    }

    /** Makes the messages of a job: tag, key and what its options ask for. */
    static class Messages {
        final String topic;
        final int percent;
        final boolean hasPart;
        final int delayLevel;

        Messages(JSONObject job) {
            topic = job.getString("topic");
            percent = options(job).containsKey("percent") ? options(job).getIntValue("percent") : 100;
            hasPart = "sql".equals(options(job).getString("filter_kind"));
            delayLevel = options(job).getIntValue("delay_s");
        }

        Message make(byte[] body, long number) {
            String tag = number % 100 < percent ? "TagA" : "TagB";
            Message message = new Message(topic, tag, KEYS[(int) (number % KEYS.length)], body);
            if (hasPart) {
                message.putUserProperty("part", tag);
            }
            if (delayLevel > 0) {
                message.setDelayTimeLevel(delayLevel);
            }
            return message;
        }
    }

    static MessageSelector wanted(JSONObject job) {
        String filter = options(job).getString("filter");
        if (filter == null) {
            return MessageSelector.byTag("*");
        }
        boolean sql = "sql".equals(options(job).getString("filter_kind"));
        return sql ? MessageSelector.bySql(filter) : MessageSelector.byTag(filter);
    }

    static byte[] body(JSONObject job) {
        byte[] body = new byte[job.getIntValue("body_bytes")];
        new Random(body.length).nextBytes(body);
        return body;
    }

    static long deadline(JSONObject job) {
        return System.nanoTime() + (long) (job.getDoubleValue("seconds") * 1e9);
    }

    static void check(SendResult result) {
        if (result.getSendStatus() != SendStatus.SEND_OK) {
            throw new IllegalStateException("send status " + result.getSendStatus());
        }
    }

    static Stretch sendOneByOne(JSONObject job) {
        byte[] body = body(job);
        String topic = job.getString("topic");
        Messages make = new Messages(job);
        return (producer, first, latency) -> {
            List<MessageQueue> queues = producer.fetchPublishMessageQueues(topic);
            long end = deadline(job);
            long number = first;
            long before = System.nanoTime();
            boolean inTransaction = producer instanceof TransactionMQProducer;
            while (before < end) {
                Message message = make.make(body, number);
                check(inTransaction ? producer.sendMessageInTransaction(message, null)
                    : producer.send(message, queues.get((int) (number % queues.size()))));
                long now = System.nanoTime();
                latency.record(now - before);
                before = now;
                number++;
            }
            return number - first;
        };
    }

    static Stretch stream(JSONObject job) {
        byte[] body = body(job);
        String topic = job.getString("topic");
        int inFlight = job.getIntValue("in_flight");
        Messages make = new Messages(job);
        return (producer, first, latency) -> {
            List<MessageQueue> queues = producer.fetchPublishMessageQueues(topic);
            Answers answers = new Answers(inFlight, null);
            long end = deadline(job);
            long sent = 0;
            while (sent % 64 != 0 || System.nanoTime() < end) {
                long number = first + sent;
                producer.send(make.make(body, number), queues.get((int) (number % queues.size())), answers.next());
                sent++;
            }
            answers.await();
            return sent;
        };
    }

    static Stretch batch(JSONObject job) {
        byte[] body = body(job);
        String topic = job.getString("topic");
        int size = job.getIntValue("batch");
        long count = job.getLongValue("count");
        Messages make = new Messages(job);
        return (producer, first, latency) -> {
            List<MessageQueue> queues = producer.fetchPublishMessageQueues(topic);
            Answers answers = new Answers(job.getIntValue("in_flight"), latency);
            long end = deadline(job);
            long sent = 0;
            while (count > 0 ? sent < count : System.nanoTime() < end) {
                List<Message> messages = new ArrayList<>(size);
                for (int place = 0; place < size; place++) {
                    messages.add(make.make(body, sent + place));
                }
                producer.send(messages, queues.get((int) (sent / size % queues.size())), answers.next());
                sent += size;
            }
            answers.await();
            return sent;
        };
    }

    static Stretch paced(JSONObject job) {
        byte[] body = body(job);
        String topic = job.getString("topic");
        int threads = job.getIntValue("threads");
        double rate = job.getDoubleValue("rate") / threads;
        long count = Math.round(rate * job.getDoubleValue("seconds"));
        Messages make = new Messages(job);
        return (producer, first, latency) -> {
            List<MessageQueue> queues = producer.fetchPublishMessageQueues(topic);
            long begin = System.nanoTime() + Math.round(first * 1e9 / rate / threads);
            for (long number = 0; number < count; number++) {
                long moment = begin + Math.round(number * 1e9 / rate);
                waitUntil(moment);
                byte[] stamped = body.clone();
                ByteBuffer.wrap(stamped).putLong(moment);
                check(producer.send(make.make(stamped, number), queues.get((int) (number % queues.size()))));
                latency.record(System.nanoTime() - moment);
            }
            return count;
        };
    }

    static void waitUntil(long moment) {
        long left;
        while ((left = moment - System.nanoTime()) > 0) {
            if (left > SPIN_NANOS) {
                LockSupport.parkNanos(left - SPIN_NANOS);
            } else {
                Thread.onSpinWait();
            }
        }
    }

    static JSONObject outcome(long messages, long bodyBytes, double seconds, Histogram latency) {
        return new JSONObject()
            .fluentPut("messages", messages)
            .fluentPut("body_bytes", bodyBytes)
            .fluentPut("seconds", seconds)
            .fluentPut("latency", latency.counts());
    }

    /** Bounds what is unanswered, and remembers the first failure. */
    static class Answers {
        final int inFlight;
        final Semaphore room;
        final Histogram latency;
        final AtomicReference<Throwable> failure = new AtomicReference<>();

        Answers(int inFlight, Histogram latency) {
            this.inFlight = inFlight;
            this.room = new Semaphore(inFlight);
            this.latency = latency;
        }

        SendCallback next() throws InterruptedException {
            room.acquire();
            long before = System.nanoTime();
            return new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    if (result.getSendStatus() != SendStatus.SEND_OK) {
                        failure.compareAndSet(null, new IllegalStateException(result.getSendStatus().name()));
                    }
                    if (latency != null) {
                        latency.record(System.nanoTime() - before);
                    }
                    room.release();
                }

                @Override
                public void onException(Throwable error) {
                    failure.compareAndSet(null, error);
                    room.release();
                }
            };
        }

        void await() throws Exception {
            room.acquire(inFlight);
            if (failure.get() != null) {
                throw new IllegalStateException("a send failed", failure.get());
            }
        }
    }

    /** Producers only, each with a connection and a thread of its own. */
    static class Sending implements Loop {
        final JSONObject job;
        final Stretch stretch;
        final List<DefaultMQProducer> producers = new ArrayList<>();

        Sending(JSONObject job, Stretch stretch) throws Exception {
            this.job = job;
            this.stretch = stretch;
            String topic = job.getString("topic");
            byte[] body = body(job);
            for (int number = 0; number < job.getIntValue("threads"); number++) {
                DefaultMQProducer producer = producer(job);
                producers.add(producer);
                if (number == 0) {
                    makeTopic(producer, job);
                }
                List<MessageQueue> queues = producer.fetchPublishMessageQueues(topic);
                if (!job.getString("work").equals("batch") && !job.getString("work").equals("paced")) {
                    check(producer.send(new Messages(job).make(body, number), queues.get(0)));
                }
            }
        }

        @Override
        public JSONObject run() throws Exception {
            ExecutorService threads = Executors.newFixedThreadPool(producers.size());
            Histogram latency = new Histogram();
            List<Histogram> each = new ArrayList<>();
            List<Callable<Long>> tasks = new ArrayList<>();
            for (int first = 0; first < producers.size(); first++) {
                int number = first;
                Histogram own = new Histogram();
                each.add(own);
                tasks.add(() -> stretch.run(producers.get(number), number, own));
            }
            long started = System.nanoTime();
            long messages = 0;
            try {
                for (Future<Long> done : threads.invokeAll(tasks)) {
                    messages += done.get();
                }
            } finally {
                threads.shutdown();
            }
            double seconds = (System.nanoTime() - started) / 1e9;
            each.forEach(latency::merge);
            return outcome(messages, messages * job.getLongValue("body_bytes"), seconds, latency);
        }

        @Override
        public void close() {
            producers.forEach(DefaultMQProducer::shutdown);
        }
    }

    static DefaultMQProducer producer(JSONObject job) throws Exception {
        DefaultMQProducer producer = options(job).getBooleanValue("transaction")
            ? new TransactionMQProducer("BenchTransactions") : new DefaultMQProducer("BenchProducer");
        if (producer instanceof TransactionMQProducer) {
            ((TransactionMQProducer) producer).setTransactionListener(new Committing());
        }
        producer.setNamesrvAddr(address(job));
        producer.setInstanceName("bench" + INSTANCES.incrementAndGet());
        producer.setCompressMsgBodyOverHowmuch(1 << 30);
        producer.setSendMsgTimeout(30_000);
        producer.start();
        return producer;
    }

    /** The local transactions: nothing is done, all succeed. */
    static class Committing implements TransactionListener {
        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
            return LocalTransactionState.COMMIT_MESSAGE;
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            return LocalTransactionState.COMMIT_MESSAGE;
        }
    }

    static void makeTopic(DefaultMQProducer producer, JSONObject job) throws Exception {
        String topic = job.getString("topic");
        try {
            if (!producer.fetchPublishMessageQueues(topic).isEmpty()) {
                return;
            }
        } catch (Exception unknown) {
            // The name server does not know it yet: it is made below.
        }
        producer.createTopic("TBW102", topic, job.getIntValue("queues"), null);
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(40);
        while (true) {
            try {
                if (producer.fetchPublishMessageQueues(topic).size() == job.getIntValue("queues")) {
                    return;
                }
            } catch (Exception unknown) {
                if (System.nanoTime() > end) {
                    throw unknown;
                }
            }
            Thread.sleep(20);
        }
    }

    static DefaultMQPushConsumer subscriber(JSONObject job, String group) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(address(job));
        consumer.setInstanceName("bench" + INSTANCES.incrementAndGet());
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeMessageBatchMaxSize(32);
        consumer.setPullBatchSize(PULL_COUNT);
        consumer.subscribe(job.getString("topic"), "*");
        return consumer;
    }

    /** Start it and return when it has its queues, not up to a rebalance interval later. */
    static void startWithQueues(DefaultMQPushConsumer consumer) throws Exception {
        consumer.start();
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().isEmpty()) {
            if (System.nanoTime() > end) {
                throw new IllegalStateException("the consumer got no queue");
            }
            consumer.getDefaultMQPushConsumerImpl().doRebalance();
            Thread.sleep(20);
        }
    }

    /** An idle consumer that is woken: each message's age on arrival. One without a stamp shows that it is up. */
    static class Receiving implements Loop {
        final JSONObject job;
        final Histogram ages = new Histogram();
        final CountDownLatch warm = new CountDownLatch(1);
        final CountDownLatch left;
        final DefaultMQPushConsumer consumer;

        Receiving(JSONObject job) throws Exception {
            this.job = job;
            left = new CountDownLatch(job.getIntValue("count"));
            DefaultMQProducer producer = producer(job);
            makeTopic(producer, job);
            consumer = subscriber(job, job.getString("topic") + "Receiver");
            long delay = (long) (options(job).getDoubleValue("delay_s") * 1e9);
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                long now = System.nanoTime() - delay;
                for (MessageExt message : messages) {
                    long stamp = ByteBuffer.wrap(message.getBody()).getLong();
                    if (stamp == 0) {
                        warm.countDown();
                    } else {
                        ages.record(now - stamp);
                        left.countDown();
                    }
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            startWithQueues(consumer);
            byte[] unstamped = body(job);
            ByteBuffer.wrap(unstamped).putLong(0);
            check(producer.send(new Messages(job).make(unstamped, 0)));
            producer.shutdown();
            if (!warm.await(30, TimeUnit.SECONDS)) {
                throw new IllegalStateException("the first message did not arrive");
            }
        }

        @Override
        public JSONObject run() throws Exception {
            long limit = (long) (job.getDoubleValue("seconds") * 1000) + QUIET_MILLIS;
            if (!left.await(limit, TimeUnit.MILLISECONDS)) {
                throw new IllegalStateException(left.getCount() + " messages did not arrive");
            }
            long count = job.getLongValue("count");
            return outcome(count, count * job.getLongValue("body_bytes"), job.getDoubleValue("seconds"), ages);
        }

        @Override
        public void close() {
            consumer.shutdown();
        }
    }

    /** New groups read a backlog, each all of it; timed from the first delivery. */
    static class Consuming implements Loop {
        final JSONObject job;
        final List<DefaultMQPushConsumer> consumers = new ArrayList<>();
        final AtomicLong bytes = new AtomicLong();
        final AtomicLong first = new AtomicLong();
        final AtomicLong last = new AtomicLong();
        final int wanted;
        final CountDownLatch left;

        Consuming(JSONObject job) {
            this.job = job;
            wanted = job.getIntValue("count") * job.getIntValue("threads");
            left = new CountDownLatch(wanted);
        }

        void take(List<MessageExt> messages) {
            long now = System.nanoTime();
            first.compareAndSet(0, now);
            last.set(now);
            for (MessageExt message : messages) {
                bytes.addAndGet(message.getBody().length);
                left.countDown();
            }
        }

        @Override
        public JSONObject run() throws Exception {
            for (int number = 0; number < job.getIntValue("threads"); number++) {
                DefaultMQPushConsumer consumer = subscriber(job, "BenchGroup" + System.nanoTime() + "n" + number);
                consumers.add(consumer);
                if (options(job).getBooleanValue("orderly")) {
                    consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                        take(messages);
                        return ConsumeOrderlyStatus.SUCCESS;
                    });
                } else {
                    consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                        take(messages);
                        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
                    });
                }
                startWithQueues(consumer);
            }
            left.await((long) (job.getDoubleValue("seconds") * 1000) + QUIET_MILLIS, TimeUnit.MILLISECONDS);
            long count = wanted - left.getCount();
            if (count < 2) {
                throw new IllegalStateException("no message arrived");
            }
            return outcome(count, bytes.get(), Math.max(1, last.get() - first.get()) / 1e9, new Histogram());
        }

        @Override
        public void close() {
            consumers.forEach(DefaultMQPushConsumer::shutdown);
        }
    }

    /** Reads a topic from its beginning, again and again. */
    static class Pulling implements Loop {
        final JSONObject job;
        final DefaultMQPullConsumer consumer;
        final List<MessageQueue> queues;
        final MessageSelector wanted;

        Pulling(JSONObject job) throws Exception {
            this.job = job;
            consumer = new DefaultMQPullConsumer("BenchReader");
            consumer.setNamesrvAddr(address(job));
            consumer.setInstanceName("bench" + INSTANCES.incrementAndGet());
            consumer.start();
            wanted = wanted(job);
            queues = new ArrayList<>(consumer.fetchSubscribeMessageQueues(job.getString("topic")));
            consumer.pull(queues.get(0), "*", 0, 1);
        }

        @Override
        public JSONObject run() throws Exception {
            long messages = 0;
            long bytes = 0;
            long started = System.nanoTime();
            long end = deadline(job);
            while (System.nanoTime() < end) {
                for (MessageQueue queue : queues) {
                    long offset = consumer.minOffset(queue);
                    long max = consumer.maxOffset(queue);
                    while (offset < max && System.nanoTime() < end) {
                        PullResult found = consumer.pull(queue, wanted, offset, PULL_COUNT);
                        if (found.getMsgFoundList() != null) {
                            for (MessageExt message : found.getMsgFoundList()) {
                                bytes += message.getBody().length;
                            }
                        }
                        messages += found.getNextBeginOffset() - offset;
                        offset = found.getNextBeginOffset();
                    }
                }
            }
            return outcome(messages, bytes, (System.nanoTime() - started) / 1e9, new Histogram());
        }

        @Override
        public void close() {
            consumer.shutdown();
        }
    }

    /** The log-linear histogram of tools/lib/histogram.py: 64 parts of every power of two. */
    static class Histogram {
        final long[] counts = new long[64 * 58];

        synchronized void record(long value) {
            long positive = Math.max(0, value);
            int shift = Math.max(0, 64 - Long.numberOfLeadingZeros(positive) - 7);
            counts[(shift << 6) + (int) (positive >> shift)]++;
        }

        void merge(Histogram other) {
            Arrays.setAll(counts, bucket -> counts[bucket] + other.counts[bucket]);
        }

        TreeMap<String, Long> counts() {
            TreeMap<String, Long> found = new TreeMap<>();
            for (int bucket = 0; bucket < counts.length; bucket++) {
                if (counts[bucket] > 0) {
                    found.put(Integer.toString(bucket), counts[bucket]);
                }
            }
            return found;
        }
    }
}
