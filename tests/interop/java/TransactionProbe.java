import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Three transactions: "commit", "rollback", and "unknown", which the check commits. Told as JSON lines. */
final class TransactionProbe implements TransactionListener {
    private final CountDownLatch checked = new CountDownLatch(1);

    static void send(String namesrv, String topic, String group, int seconds) throws Exception {
        TransactionProbe listener = new TransactionProbe();
        TransactionMQProducer producer = new TransactionMQProducer(group);
        producer.setNamesrvAddr(namesrv);
        producer.setTransactionListener(listener);
        producer.start();
        for (String outcome : new String[] {"commit", "rollback", "unknown"}) {
            Message message = new Message(topic, "TagA", outcome, outcome.getBytes(StandardCharsets.UTF_8));
            TransactionSendResult result = producer.sendMessageInTransaction(message, outcome);
            ShmqProbe.line("{\"event\":\"sent\",\"body\":" + ShmqProbe.quote(outcome)
                + ",\"status\":" + ShmqProbe.quote(result.getSendStatus().name())
                + ",\"state\":" + ShmqProbe.quote(result.getLocalTransactionState().name())
                + ",\"transactionId\":" + ShmqProbe.quote(result.getTransactionId()) + "}");
        }
        listener.checked.await(seconds, TimeUnit.SECONDS);
        // The answer to a check is a oneway request too: its bytes must have left.
        TimeUnit.MILLISECONDS.sleep(300);
        producer.shutdown();
    }

    @Override
    public LocalTransactionState executeLocalTransaction(Message message, Object outcome) {
        switch ((String) outcome) {
            case "commit":
                return LocalTransactionState.COMMIT_MESSAGE;
            case "rollback":
                return LocalTransactionState.ROLLBACK_MESSAGE;
            default:
                return LocalTransactionState.UNKNOW;
        }
    }

    @Override
    public LocalTransactionState checkLocalTransaction(MessageExt message) {
        ShmqProbe.line("{\"event\":\"checked\",\"body\":"
            + ShmqProbe.quote(new String(message.getBody(), StandardCharsets.UTF_8))
            + ",\"topic\":" + ShmqProbe.quote(message.getTopic())
            + ",\"transactionId\":" + ShmqProbe.quote(message.getTransactionId()) + "}");
        checked.countDown();
        return LocalTransactionState.COMMIT_MESSAGE;
    }
}
