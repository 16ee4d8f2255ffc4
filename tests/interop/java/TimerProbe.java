import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;

/**
 * Messages for a moment: "ms", "seconds", "moment", and "recalled", which is taken back. Told as JSON lines.
 *
 * NAMESRV TOPIC GROUP SECONDS   send, take back, consume the three that are delivered, try to take back again
 */
final class TimerProbe {
    private static DefaultMQProducer producer;

    public static void main(String[] args) throws Exception {
        String topic = args[1];
        producer = new DefaultMQProducer("TimerProbe");
        producer.setNamesrvAddr(args[0]);
        producer.start();
        Message ms = message(topic, "ms");
        ms.setDelayTimeMs(800);
        Message seconds = message(topic, "seconds");
        seconds.setDelayTimeSec(1);
        Message moment = message(topic, "moment");
        moment.setDeliverTimeMs(System.currentTimeMillis() + 1200);
        Message recalled = message(topic, "recalled");
        recalled.setDelayTimeMs(60_000);
        SendResult first = send(ms);
        send(seconds);
        send(moment);
        SendResult last = send(recalled);
        ShmqProbe.line("{\"event\":\"recalled\",\"msgId\":"
            + ShmqProbe.quote(producer.recallMessage(topic, last.getRecallHandle())) + "}");
        int status = ShmqProbe.consume(args[0], topic, args[2], 3, Integer.parseInt(args[3]));
        try {
            producer.recallMessage(topic, first.getRecallHandle());
        } catch (MQBrokerException error) {
            ShmqProbe.line("{\"event\":\"refused\",\"code\":" + error.getResponseCode() + "}");
        }
        System.exit(status);
    }

    private static Message message(String topic, String name) {
        return new Message(topic, "TagA", name, name.getBytes(StandardCharsets.UTF_8));
    }

    private static SendResult send(Message message) throws Exception {
        SendResult result = producer.send(message);
        ShmqProbe.line("{\"event\":\"sent\",\"body\":" + ShmqProbe.quote(message.getKeys())
            + ",\"status\":" + ShmqProbe.quote(result.getSendStatus().name())
            + ",\"msgId\":" + ShmqProbe.quote(result.getMsgId())
            + ",\"handle\":" + (result.getRecallHandle() != null) + "}");
        return result;
    }
}
