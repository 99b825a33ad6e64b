package reco;

import com.yahoo.application.Application;
import com.yahoo.application.Networking;
import com.yahoo.component.annotation.Inject;
import com.yahoo.component.chain.dependencies.After;
import com.yahoo.component.chain.dependencies.Before;
import com.yahoo.container.jdisc.HttpRequest;
import com.yahoo.container.jdisc.HttpResponse;
import com.yahoo.container.jdisc.ThreadedHttpRequestHandler;
import com.yahoo.prelude.query.AndItem;
import com.yahoo.prelude.query.CompositeItem;
import com.yahoo.prelude.query.IntItem;
import com.yahoo.prelude.query.Item;
import com.yahoo.prelude.query.Limit;
import com.yahoo.prelude.query.NearestNeighborItem;
import com.yahoo.prelude.query.OrItem;
import com.yahoo.prelude.query.PhraseItem;
import com.yahoo.prelude.query.TrueItem;
import com.yahoo.prelude.query.WeakAndItem;
import com.yahoo.prelude.query.WordItem;
import com.yahoo.search.Query;
import com.yahoo.search.Result;
import com.yahoo.search.Searcher;
import com.yahoo.search.result.Hit;
import com.yahoo.search.searchchain.Execution;
import com.yahoo.search.searchchain.PhaseNames;
import com.yahoo.slime.ArrayTraverser;
import com.yahoo.slime.Cursor;
import com.yahoo.slime.Inspector;
import com.yahoo.slime.ObjectTraverser;
import com.yahoo.slime.Slime;
import com.yahoo.slime.SlimeUtils;
import com.yahoo.slime.Type;
import com.yahoo.tensor.Tensor;
import com.yahoo.tensor.TensorAddress;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Stands where content nodes are: compares each document with a query, which the container has read. */
@After(PhaseNames.TRANSFORMED_QUERY)
@Before(PhaseNames.BLENDED_RESULT)
public class Exact extends Searcher {
    private static final List<Inspector> DOCUMENTS = new ArrayList<>();
    private static String metric;

    /** Starts the container: folder of the application, file of the documents, distance-metric of the schema. */
    public static void main(String[] given) throws Exception {
        SlimeUtils.jsonToSlime(Files.readAllBytes(Path.of(given[1]))).get()
            .traverse((ArrayTraverser) (at, document) -> DOCUMENTS.add(document));
        metric = given[2];
        Application.fromApplicationPackage(Path.of(given[0]), Networking.enable);
        Thread.currentThread().join();
    }

    @Override
    public Result search(Query query, Execution execution) {
        Item root = query.getModel().getQueryTree().getRoot();
        NearestNeighborItem near = nearest(root);
        double[] vector = near == null ? null : vector(query, near);
        List<Map.Entry<Inspector, Double>> found = new ArrayList<>();
        for (Inspector document : DOCUMENTS)
            if (matches(root, document)) found.add(Map.entry(document, score(root, near, vector, document)));
        found.sort((a, b) -> Double.compare(b.getValue(), a.getValue()));
        int most = near == null || near.getTargetHits() == null ? found.size() : near.getTargetHits();
        Result result = new Result(query);
        result.setTotalHitCount(found.size());
        for (var one : found.subList(0, Math.min(Math.min(most, found.size()), query.getHits())))
            result.hits().add(hit(one.getKey(), one.getValue(), query.getPresentation().getSummaryFields()));
        return result;
    }

    private static Hit hit(Inspector document, double score, Set<String> shown) {
        Hit hit = new Hit(id(document), score);
        if (shown.contains("documentid")) hit.setField("documentid", id(document));
        for (String name : shown)
            if (document.field(name).type() == Type.STRING) hit.setField(name, document.field(name).asString());
        hit.setFilled("default");
        return hit;
    }

    private static String id(Inspector document) {
        return "id:shop:product::" + document.field("sku").asString();
    }

    private static NearestNeighborItem nearest(Item item) {
        if (item instanceof NearestNeighborItem near) return near;
        if (item instanceof CompositeItem many)
            for (Item one : many.items()) if (nearest(one) != null) return nearest(one);
        return null;
    }

    private static double[] vector(Query query, NearestNeighborItem near) {
        Tensor tensor = query.getRanking().getFeatures().getTensor("query(" + near.getQueryTensorName() + ")").get();
        double[] vector = new double[(int) tensor.size()];
        for (int at = 0; at < vector.length; at++) vector[at] = tensor.get(TensorAddress.of(at));
        return vector;
    }

    private static double score(Item root, NearestNeighborItem near, double[] vector, Inspector document) {
        return near == null ? words(root, document) : closeness(document.field(near.getIndexName()), vector);
    }

    private static double closeness(Inspector stored, double[] query) {
        double dot = 0, norm = 0, apart = 0, own = 0;
        for (int at = 0; at < query.length; at++) {
            double value = stored.entry(at).asDouble();
            dot += query[at] * value;
            norm += value * value;
            own += query[at] * query[at];
            apart += (query[at] - value) * (query[at] - value);
        }
        return switch (metric) {
            case "dotproduct" -> dot;
            case "angular" -> 1 / (1 + Math.acos(Math.max(-1, Math.min(1, dot / Math.sqrt(norm * own)))));
            case "euclidean" -> 1 / (1 + Math.sqrt(apart));
            default -> 1 / (2 - dot / own); // prenormalized-angular
        };
    }

    /** How many of the words a document has. */
    private static double words(Item item, Inspector document) {
        if (item instanceof CompositeItem many) return many.items().stream().mapToDouble(one -> words(one, document)).sum();
        return item instanceof WordItem && matches(item, document) ? 1 : 0;
    }

    private static boolean matches(Item item, Inspector document) {
        if (item instanceof TrueItem) return true;
        if (item instanceof NearestNeighborItem near) return document.field(near.getIndexName()).valid();
        if (item instanceof AndItem || item instanceof PhraseItem)
            return ((CompositeItem) item).items().stream().allMatch(one -> matches(one, document));
        if (item instanceof OrItem || item instanceof WeakAndItem)
            return ((CompositeItem) item).items().stream().anyMatch(one -> matches(one, document));
        if (item instanceof IntItem range) {
            double value = document.field(range.getIndexName()).asDouble();
            Limit from = range.getFromLimit(), to = range.getToLimit();
            double least = from.number().doubleValue(), most = to.number().doubleValue();
            return (value > least || from.isInclusive() && value == least) && (value < most || to.isInclusive() && value == most);
        }
        if (item instanceof WordItem word)
            return Arrays.asList(document.field(word.getIndexName()).asString().split(" ")).contains(word.getWord());
        throw new IllegalArgumentException("not known here: " + item);
    }

    /** Answers as the document API does, to a visit and to one id. */
    public static class Documents extends ThreadedHttpRequestHandler {
        @Inject
        public Documents(Context context) {
            super(context);
        }

        @Override
        public HttpResponse handle(HttpRequest request) {
            String path = request.getUri().getPath();
            Slime answer = new Slime();
            Cursor root = answer.setObject();
            root.setString("pathId", path);
            if (path.equals("/document/v1/")) {
                int wanted = Integer.parseInt(request.getProperty("wantedDocumentCount"));
                Cursor all = root.setArray("documents");
                DOCUMENTS.subList(0, Math.min(wanted, DOCUMENTS.size())).forEach(one -> write(one, all.addObject()));
                root.setLong("documentCount", all.entries());
            } else {
                DOCUMENTS.stream().filter(one -> path.endsWith("/shop/product/docid/" + one.field("sku").asString()))
                    .forEach(one -> write(one, root));
            }
            return new HttpResponse(200) {
                @Override
                public void render(OutputStream out) throws IOException {
                    out.write(SlimeUtils.toJsonBytes(answer));
                }
            };
        }

        private static void write(Inspector document, Cursor into) {
            into.setString("id", id(document));
            Cursor fields = into.setObject("fields");
            document.traverse((ObjectTraverser) (name, value) -> {
                if (value.type() != Type.ARRAY) {
                    SlimeUtils.setObjectEntry(value, name, fields);
                    return;
                }
                Cursor tensor = fields.setObject(name);
                tensor.setString("type", "tensor<float>(x[" + value.entries() + "])");
                SlimeUtils.copyArray(value, tensor.setArray("values"));
            });
        }
    }
}
