import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.HashMap;
import java.util.Map;
import org.apache.rocketmq.filter.FilterFactory;
import org.apache.rocketmq.filter.FilterSpi;
import org.apache.rocketmq.filter.expression.EvaluationContext;
import org.apache.rocketmq.filter.expression.Expression;

/**
 * What RocketMQ's own SQL92 filter says. FILE: a line each, the expression and, behind 0x1F, its properties
 * (name 0x01 value 0x02 ...). Answers one JSON line with a letter for each: T true, F false, N null,
 * O something else, E an error when it was evaluated, X refused.
 */
final class SqlProbe {
    public static void main(String[] args) throws Exception {
        FilterSpi filter = FilterFactory.INSTANCE.get("SQL92");
        StringBuilder outcomes = new StringBuilder();
        for (String line : Files.readAllLines(Paths.get(args[0]), StandardCharsets.UTF_8)) {
            int end = line.indexOf(0x1F);
            outcomes.append(outcome(filter, line.substring(0, end), line.substring(end + 1)));
        }
        System.out.println("{\"outcomes\":\"" + outcomes + "\"}");
    }

    private static char outcome(FilterSpi filter, String expression, String text) {
        Expression compiled;
        try {
            compiled = filter.compile(expression);
        } catch (Throwable error) {
            return 'X';
        }
        final Map<String, Object> properties = new HashMap<>();
        for (String pair : text.split("\u0002")) {
            int at = pair.indexOf(1);
            if (at > 0) {
                properties.put(pair.substring(0, at), pair.substring(at + 1));
            }
        }
        try {
            Object found = compiled.evaluate(new EvaluationContext() {
                @Override
                public Object get(String name) {
                    return properties.get(name);
                }

                @Override
                public Map<String, Object> keyValues() {
                    return properties;
                }
            });
            return found == null ? 'N' : !(found instanceof Boolean) ? 'O' : (Boolean) found ? 'T' : 'F';
        } catch (Throwable error) {
            return 'E';
        }
    }
}
