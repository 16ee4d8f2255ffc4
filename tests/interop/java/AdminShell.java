import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * The original mqadmin, command after command in one JVM: one line of arguments (separated by 0x1f) in, its output
 * and a line with 0x04 out. Only the JVM start is saved; each command is parsed and run by the original's own main.
 */
public class AdminShell {
    public static void main(String[] args) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            MQAdminStartup.main0(line.split("" + (char) 0x1f), null);
            System.out.flush();
            System.out.print("\n\u0004\n");
            System.out.flush();
        }
        System.exit(0);
    }
}
