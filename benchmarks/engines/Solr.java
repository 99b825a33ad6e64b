import java.util.concurrent.CountDownLatch;
import org.apache.solr.embedded.JettyConfig;
import org.apache.solr.embedded.JettySolrRunner;

/** Starts Solr by HTTP, as its own tests do: folder of the cores, port. */
public class Solr {
    public static void main(String[] given) throws Exception {
        JettyConfig config = JettyConfig.builder().setContext("/solr").setPort(Integer.parseInt(given[1])).build();
        new JettySolrRunner(given[0], config).start();
        new CountDownLatch(1).await();
    }
}
