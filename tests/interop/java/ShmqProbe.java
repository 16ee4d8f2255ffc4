import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * What a plain RocketMQ program does, told as JSON lines.
 *
 * send NAMESRV TOPIC COUNT       COUNT messages by each of: sync, async, oneway
 * consume NAMESRV TOPIC GROUP COUNT SECONDS   clustering push consumer until COUNT messages came
 * roundtrip NAMESRV TOPIC GROUP COUNT SECONDS   send, then consume all of them, in one JVM
 * transact NAMESRV TOPIC GROUP SECONDS   three transactions, then consume the two that are committed
 */
public class ShmqProbe {
    public static void main(String[] args) throws Exception {
        String namesrv = args[1];
        String topic = args[2];
        int status = 0;
        switch (args[0]) {
            case "send":
                send(namesrv, topic, Integer.parseInt(args[3]));
                break;
            case "consume":
                status = consume(namesrv, topic, args[3], Integer.parseInt(args[4]), Integer.parseInt(args[5]));
                break;
            case "roundtrip":
                send(namesrv, topic, Integer.parseInt(args[4]));
                status = consume(namesrv, topic, args[3], 3 * Integer.parseInt(args[4]), Integer.parseInt(args[5]));
                break;
            case "transact":
                TransactionProbe.send(namesrv, topic, args[3], Integer.parseInt(args[4]));
                status = consume(namesrv, topic, args[3] + "Consumers", 2, Integer.parseInt(args[4]));
                break;
            default:
                throw new IllegalArgumentException(args[0]);
        }
        // Client threads that are not daemons must not keep a finished probe alive.
        System.exit(status);
    }

    static Message message(String topic, String mode, int number) {
        byte[] body = (mode + " " + number).getBytes(StandardCharsets.UTF_8);
        Message message = new Message(topic, mode.equals("sync") ? "TagA" : "TagB", mode + "-" + number, body);
        message.putUserProperty("mode", mode);
        return message;
    }

    static void send(String namesrv, String topic, int count) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("ProbeProducer");
        producer.setNamesrvAddr(namesrv);
        producer.start();
        for (int i = 0; i < count; i++) {
            report("sync", producer.send(message(topic, "sync", i)));
        }
        CountDownLatch answered = new CountDownLatch(count);
        for (int i = 0; i < count; i++) {
            producer.send(message(topic, "async", i), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    report("async", result);
                    answered.countDown();
                }

                @Override
                public void onException(Throwable error) {
                    line("{\"event\":\"error\",\"text\":" + quote(error.toString()) + "}");
                    answered.countDown();
                }
            });
        }
        answered.await(20, TimeUnit.SECONDS);
        for (int i = 0; i < count; i++) {
            producer.sendOneway(message(topic, "oneway", i));
        }
        // A oneway send returns before its bytes have left; give them the time to.
        TimeUnit.MILLISECONDS.sleep(300);
        producer.shutdown();
    }

    static int consume(String namesrv, String topic, String group, int count, int seconds) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPersistConsumerOffsetInterval(500);
        consumer.subscribe(topic, "*");
        CountDownLatch all = new CountDownLatch(count);
        AtomicInteger batches = new AtomicInteger();
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            batches.incrementAndGet();
            for (MessageExt message : messages) {
                line("{\"event\":\"message\",\"body\":" + quote(new String(message.getBody(), StandardCharsets.UTF_8))
                    + ",\"tags\":" + quote(message.getTags()) + ",\"keys\":" + quote(message.getKeys())
                    + ",\"queueId\":" + message.getQueueId() + ",\"queueOffset\":" + message.getQueueOffset()
                    + ",\"mode\":" + quote(message.getUserProperty("mode")) + ",\"msgId\":" + quote(message.getMsgId())
                    + "}");
                all.countDown();
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        boolean complete = all.await(seconds, TimeUnit.SECONDS);
        consumer.shutdown();
        return complete ? 0 : 3;
    }

    static void report(String mode, SendResult result) {
        line("{\"event\":\"sent\",\"mode\":" + quote(mode) + ",\"status\":" + quote(result.getSendStatus().name())
            + ",\"msgId\":" + quote(result.getMsgId()) + ",\"offsetMsgId\":" + quote(result.getOffsetMsgId())
            + ",\"queueId\":" + result.getMessageQueue().getQueueId()
            + ",\"brokerName\":" + quote(result.getMessageQueue().getBrokerName())
            + ",\"queueOffset\":" + result.getQueueOffset() + "}");
    }

    static synchronized void line(String text) {
        System.out.println(text);
        System.out.flush();
    }

    static String quote(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < 0x20) {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}
