//! Schedules: round trips, what they fit, the memory that they need.

use syncbn_ir::ops::Op;
use syncbn_ir::schedule::{Convolution, Direction};
use syncbn_ir::{DType, Graph, Layout, NodeId, Schedule, TensorType, parse, parse_schedule, print, verify};

const ALL: [&str; 8] = [
    "general",
    "direct(lanes = 16, pixels = 14, vectors = 2, rows = 1)",
    "pointwise(lanes = 8, pixels = 6, vectors = 2, rows = 4)",
    "depthwise(lanes = 4, pixels = 8)",
    "winograd(lanes = 16, pixels = 8, vectors = 2, tiles = 16, chunked = true, prepared = false)",
    "polyphase(lanes = 8, pixels = 6, vectors = 2, tiles = 12, chunked = false, prepared = false)",
    "product(lanes = 16, pixels = 6, vectors = 4, depth = 256)",
    "implicit_gemm(rows = 64, columns = 32, depth = 32, warp_rows = 32, warp_columns = 16, stages = 3, resident = 4, splits = 1)",
];

/// A graph of a convolution, what it is made of, and a matrix product.
fn graph(dtype: &str, (kernel, stride, pad, groups): (usize, usize, usize, usize)) -> Graph {
    let size = (8 + 2 * pad - kernel) / stride + 1;
    let per_group = 16 / groups;
    let attributes = format!(
        "strides = [{stride}, {stride}], pads = [{pad}, {pad}, {pad}, {pad}], dilations = [1, 1], groups = {groups}"
    );
    let w = format!("{dtype}[16, {per_group}, {kernel}, {kernel}]");
    let text = format!(
        "graph \"g\" {{
  %x = input \"x\" data : {dtype}[batch, 16, 8, 8]
  %dy = input \"dy\" data : {dtype}[batch, 16, {size}, {size}]
  %m = input \"m\" data : {dtype}[batch, 20]
  %w = parameter \"w\" trained fill(1) : {w}
  %v = parameter \"v\" trained fill(1) : {dtype}[20, 10]
  %y = conv(%x, %w) {{{attributes}}} : {dtype}[batch, 16, {size}, {size}]
  %dx = conv_backward_data(%dy, %w) {{{attributes}, input = [8, 8]}} : {dtype}[batch, 16, 8, 8]
  %dw = conv_backward_weight(%x, %dy) {{{attributes}, kernel = [{kernel}, {kernel}]}} : {w}
  %p = matmul(%m, %v) {{}} : {dtype}[batch, 10]
  return output \"y\" %y, output \"dx\" %dx, output \"dw\" %dw, output \"p\" %p
}}"
    );
    parse(&text).unwrap()
}

fn find(graph: &Graph, name: &str) -> NodeId {
    graph.nodes().find(|&id| graph.op(id).name() == name).unwrap()
}

/// What the verifier says of this schedule on this operator.
fn refusal(graph: &mut Graph, op: &str, schedule: &str) -> Option<String> {
    let id = find(graph, op);
    graph.set_schedule(id, Some(schedule.parse().unwrap()));
    let errors = verify(graph).err()?;
    assert_eq!(errors.len(), 1);
    let text = errors[0].to_string();
    Some(text.split_once("does not fit: ").unwrap().1.to_string())
}

#[test]
fn the_text_form_is_read_back() {
    for text in ALL {
        let schedule = parse_schedule(text).unwrap();
        assert_eq!(schedule.to_string(), text);
        assert_eq!(text.parse::<Schedule>(), Ok(schedule));
        assert!(Schedule::NAMES.contains(&schedule.name()));
    }
    assert_eq!(ALL.len(), Schedule::NAMES.len());
}

#[test]
fn schedules_and_workspaces_stand_in_graphs() {
    let mut graph = graph("f32", (3, 1, 1, 1));
    let id = find(&graph, "conv");
    graph.set_schedule(id, Some(ALL[4].parse().unwrap()));
    let location = syncbn_ir::Location {
        arena: syncbn_ir::Arena::Step,
        offset: 128,
    };
    graph.node_mut(id).workspace = Some(location);
    let text = print(&graph);
    assert!(
        text.contains("groups = 1, schedule = winograd(lanes = 16,"),
        "{text}"
    );
    assert!(
        text.contains(" : f32[batch, 16, 8, 8] workspace @step+128\n"),
        "{text}"
    );
    let again = parse(&text).unwrap();
    assert_eq!(print(&again), text);
    assert_eq!(again.schedule(find(&again, "conv")), graph.schedule(id));
    graph.node_mut(id).workspace = Some(syncbn_ir::Location {
        offset: 4,
        ..location
    });
    let errors = verify(&graph).unwrap_err();
    assert!(
        errors[0]
            .to_string()
            .contains("workspace lies at step+4, which is not a multiple of 64")
    );
}

#[test]
fn what_is_no_schedule_is_refused() {
    for (text, expected) in [
        ("fast", "unknown schedule fast; there are general, direct"),
        ("depthwise(lanes = 4)", "attribute pixels is missing"),
        (
            "depthwise(lanes = 4, pixels = 8, rows = 1)",
            "schedule depthwise has no field rows",
        ),
        (
            "depthwise(lanes = true, pixels = 8)",
            "attribute lanes has the wrong kind",
        ),
        (
            "depthwise(lanes = 4, pixels = 8) x",
            "expected the end of the schedule",
        ),
        (
            "depthwise(lanes = 4.5, pixels = 8)",
            "`4.5` is not a whole number",
        ),
    ] {
        let error = parse_schedule(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let twice = "graph \"g\" { %x = input \"x\" data : f32[batch, 2] \
        %y = identity(%x) {schedule = general, schedule = general} : f32[batch, 2] return }";
    assert!(
        parse(twice)
            .unwrap_err()
            .to_string()
            .contains("the schedule is there twice")
    );
}

#[test]
fn a_schedule_fits_its_operators() {
    let [_, direct, pointwise, depthwise, winograd, polyphase, product, _] = ALL;
    let fits = |shape, op: &str, schedule: &str| refusal(&mut graph("f32", shape), op, schedule);
    for op in ["conv", "conv_backward_data", "conv_backward_weight"] {
        assert_eq!(fits((3, 1, 1, 1), op, direct), None);
        assert_eq!(fits((3, 2, 0, 1), op, direct), None);
        assert_eq!(fits((1, 2, 0, 1), op, pointwise), None);
        assert_eq!(fits((5, 2, 2, 16), op, depthwise), None);
        assert_eq!(fits((3, 1, 0, 1), op, winograd), None);
        assert_eq!(fits((3, 2, 1, 1), op, polyphase), None);
        let reason = |shape, schedule| fits(shape, op, schedule).unwrap_or_default();
        assert!(reason((1, 1, 1, 1), pointwise).contains("without padding"));
        assert!(reason((3, 2, 0, 4), direct).contains("channels fill vectors"));
        assert!(reason((3, 1, 1, 8), depthwise).contains("one filter a channel"));
        assert!(reason((3, 2, 1, 1), winograd).contains("stride 1"));
        assert!(reason((3, 1, 1, 2), winograd).contains("groups"));
        assert!(reason((3, 2, 0, 1), polyphase).contains("padding 1"));
        assert!(reason((3, 1, 1, 1), product).contains("matrix products"));
        let double = refusal(&mut graph("f64", (3, 1, 1, 1)), op, winograd).unwrap();
        assert_eq!(double, "its rounding is for f32");
    }
    assert_eq!(fits((3, 1, 1, 1), "matmul", product), None);
    assert_eq!(
        fits((3, 1, 1, 1), "matmul", direct).unwrap(),
        "it is for convolutions"
    );
    let three = "direct(lanes = 3, pixels = 1, vectors = 1, rows = 1)";
    assert!(
        fits((3, 1, 1, 1), "conv", three)
            .unwrap()
            .contains("no power of two")
    );
    let zero = "direct(lanes = 4, pixels = 0, vectors = 1, rows = 1)";
    assert!(fits((3, 1, 1, 1), "conv", zero).unwrap().contains("pixels is 0"));
}

#[test]
fn tensor_cores_take_tiles_that_there_are() {
    let gemm = ALL[7];
    let fits = |op: &str, schedule: &str| refusal(&mut graph("f32", (3, 2, 1, 1)), op, schedule);
    for op in ["conv", "conv_backward_data", "conv_backward_weight"] {
        assert_eq!(fits(op, gemm), None);
        let reason = |dtype, shape| refusal(&mut graph(dtype, shape), op, gemm).unwrap();
        assert!(reason("f32", (3, 1, 1, 2)).contains("without groups"));
        assert!(reason("f64", (3, 1, 1, 1)).contains("operands of f32 or of bf16"));
        let other = gemm.replace("stages = 3", "stages = 2");
        assert_eq!(fits(op, &other).unwrap(), "kernels for f32 have no such tile");
        let split = fits(op, &gemm.replace("splits = 1", "splits = 8"));
        match op {
            "conv_backward_weight" => assert_eq!(split, None),
            _ => assert_eq!(split.unwrap(), "only gradients of weights are summed in parts"),
        }
    }
    for (splits, reason) in [
        ("32768", "bytes of results"),
        ("65536", "a grid has at most 65535 parts"),
    ] {
        let many = gemm.replace("splits = 1", &format!("splits = {splits}"));
        let refused = fits("conv_backward_weight", &many).unwrap();
        assert!(refused.contains(reason), "{refused}");
    }
    assert_eq!(fits("matmul", gemm).unwrap(), "its channels are no multiple of 4");
    let narrow = print(&graph("f32", (3, 1, 1, 1))).replace("[batch, 16, 8, 8]", "[batch, 6, 8, 8]");
    let mut narrow = parse(&narrow.replace("[16, 16, 3, 3]", "[6, 6, 3, 3]")).unwrap();
    assert_eq!(
        refusal(&mut narrow, "conv", gemm).unwrap(),
        "its channels are no multiple of 4"
    );
}

#[test]
fn weights_are_transformed_for_results_only_and_not_in_chunks() {
    let [.., winograd, polyphase, _, _] = ALL;
    for (schedule, stride) in [(winograd, 1), (polyphase, 2)] {
        let prepared = schedule.replace("prepared = false", "prepared = true");
        let whole = prepared.replace("chunked = true", "chunked = false");
        let fits = |op: &str, schedule: &str| refusal(&mut graph("f32", (3, stride, 1, 1)), op, schedule);
        assert_eq!(fits("conv", &whole), None);
        for op in ["conv_backward_data", "conv_backward_weight"] {
            assert_eq!(fits(op, &whole).unwrap(), "it is prepared for results only");
        }
        let chunked = whole.replace("chunked = false", "chunked = true");
        assert_eq!(
            fits("conv", &chunked).unwrap(),
            "weights that are prepared are not chunked"
        );
    }
}

/// What the verifier says of a convolution that reads a copy of its weights in a layout.
fn refusal_of_copy(change: impl Fn(&str) -> String) -> Vec<String> {
    let text = "graph \"g\" {
  %x = input \"x\" data : f32[batch, 16, 8, 8]
  %w = parameter \"w\" trained fill(1) : f32[40, 16, 3, 3]:filter16
  %u = identity(%w) : f32[40, 16, 3, 3]:winograd32
  %y = conv(%x, %u) {strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1], groups = 1, schedule = winograd(lanes = 16, pixels = 8, vectors = 2, tiles = 8, chunked = false, prepared = true)} : f32[batch, 40, 8, 8]
  return output \"y\" %y
}";
    let graph = parse(&change(text)).unwrap();
    let errors = verify(&graph).err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn transformed_weights_are_for_what_reads_them() {
    assert_eq!(refusal_of_copy(str::to_string), [""; 0]);
    for (from, to) in [
        ("vectors = 2", "vectors = 4"),
        ("winograd32", "polyphase32"),
        ("prepared = true", "prepared = false"),
        ("identity(%w)", "unary(%w) {function = relu}"),
        ("return", "return output \"u\" %u,"),
        (":filter16", ""),
        (":filter16", ":filter24"),
    ] {
        let errors = refusal_of_copy(|text| text.replace(from, to));
        assert_eq!(errors.len(), 1, "{from} as {to}: {errors:?}");
        let expected = "whose layout is for a copy that convolutions with such a schedule read";
        assert!(errors[0].ends_with(expected), "{}", errors[0]);
    }
    let larger = refusal_of_copy(|text| text.replace("3, 3]", "5, 5]").replace("1, 1, 1, 1", "2, 2, 2, 2"));
    let expected = "whose layout is for weights of 3x3 convolutions";
    assert!(larger.iter().any(|error| error.ends_with(expected)), "{larger:?}");
}

/// What the verifier says of a schedule on a convolution of 8x8 elements in this direction, with other strides, and with
/// dilations that padding makes up for.
fn refusal_of_window(
    op: &str,
    schedule: &str,
    stride: usize,
    dilation: usize,
    groups: usize,
) -> Option<String> {
    let mut graph = graph("f32", (1, 1, 0, groups));
    let text = print(&graph);
    let size = 7 / stride + 1;
    let (kernel, pads) = if dilation == 1 { (1, 0) } else { (3, dilation) };
    let text = text
        .replace("strides = [1, 1]", &format!("strides = [{stride}, {stride}]"))
        .replace(
            "dilations = [1, 1]",
            &format!("dilations = [{dilation}, {dilation}]"),
        )
        .replace(
            "pads = [0, 0, 0, 0]",
            &format!("pads = [{pads}, {pads}, {pads}, {pads}]"),
        )
        .replace(", 1, 1]", &format!(", {kernel}, {kernel}]"))
        .replace("kernel = [1, 1]", &format!("kernel = [{kernel}, {kernel}]"));
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    for line in &mut lines {
        if line.contains("\"dy\" data") || line.contains(" = conv(") {
            *line = line.replace("16, 8, 8]", &format!("16, {size}, {size}]"));
        }
    }
    graph = parse(&lines.join("\n")).unwrap();
    assert!(verify(&graph).is_ok());
    refusal(&mut graph, op, schedule)
}

#[test]
fn code_and_copies_without_end_are_refused() {
    let [_, direct, _, depthwise, ..] = ALL;
    for (schedule, groups) in [(direct, 1), (depthwise, 16)] {
        let of = |op: &str, stride, dilation| refusal_of_window(op, schedule, stride, dilation, groups);
        for op in ["conv", "conv_backward_data", "conv_backward_weight"] {
            assert_eq!(of(op, 7, 1), None);
            assert_eq!(of(op, 1, 100), None);
            let reason = of(op, 1, 1 << 29).unwrap();
            assert!(reason.contains("copy of the input"), "{reason}");
            let reason = of(op, 1 << 40, 1).unwrap();
            assert!(reason.contains("strides"), "{reason}");
        }
        assert_eq!(of("conv", 8, 1), None);
        let reason = of("conv_backward_data", 8, 1).unwrap();
        assert_eq!(reason, "its strides take 64 forms of code, more than 49");
    }
}

#[test]
fn a_convolution_is_the_same_in_all_directions() {
    let graph = graph("f32", (3, 2, 1, 1));
    let of = |name| {
        let id = find(&graph, name);
        let (operands, results) = graph.types(id);
        Convolution::of(graph.op(id), &operands, &results).unwrap()
    };
    let forward = of("conv");
    assert_eq!(forward.direction, Direction::Forward);
    assert_eq!(
        (forward.c, forward.k, forward.inputs(), forward.outputs()),
        (16, 16, 64, 16)
    );
    assert_eq!(forward.multiplications(), 16 * 16 * 16 * 9);
    for (name, direction) in [
        ("conv_backward_data", Direction::BackwardData),
        ("conv_backward_weight", Direction::BackwardWeight),
    ] {
        let expected = Convolution {
            direction,
            ..forward.clone()
        };
        assert_eq!(of(name), expected);
    }
    let product = find(&graph, "matmul");
    let Op::MatMul(op) = graph.op(product) else {
        unreachable!()
    };
    let (operands, _) = graph.types(product);
    assert_eq!(
        syncbn_ir::schedule::product_sizes(op, &operands, 7),
        Some([7, 10, 20])
    );
}

#[test]
fn workspaces_follow_from_schedule_and_types() {
    let mut graph = graph("f32", (3, 1, 1, 1));
    let mut bytes = |op: &str, schedule: &str| {
        let id = find(&graph, op);
        graph.set_schedule(id, Some(schedule.parse().unwrap()));
        graph.workspace_bytes(id, 32)
    };
    let [general, direct, _, _, winograd, _, product, _] = ALL;
    // The three padded rows that one row of results reads.
    let rows = 3 * 10 * 16 * 4;
    assert_eq!(bytes("conv", general), 0);
    assert_eq!(bytes("conv", direct), rows);
    // The same rows in stripes of a tile's channels, and the gradients of a row of results that two vectors of output channels
    // have.
    let stripes = 2 * (3 * 10 * 14 * 4 + 64);
    assert_eq!(bytes("conv_backward_weight", direct), stripes + 8 * 2 * 16 * 4);
    assert_eq!(bytes("conv_backward_data", direct), rows + 16 * 16 * 9 * 4);
    // A row of zeros, a square of weights, and 36 matrices each of inputs, products and weights.
    let matrices = (16 * 16 + 16) + (16 * 32 + 16) + (16 * 32 + 16);
    let winograd_bytes = (6 * 16 + 16 + 9 * 16 * 16 + 36 * matrices) * 4;
    assert_eq!(bytes("conv", winograd), winograd_bytes);
    let prepared = winograd.replace(
        "chunked = true, prepared = false",
        "chunked = false, prepared = true",
    );
    assert_eq!(bytes("conv", &prepared), winograd_bytes - 36 * (16 * 32 + 16) * 4);
    // A panel of four vectors of columns, for all twenty terms.
    assert_eq!(bytes("matmul", product), 20 * 4 * 16 * 4);
}

#[test]
fn on_a_gpu_the_general_form_has_a_workspace_too() {
    let window = "strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1]";
    let graph = parse(&format!(
        "graph \"g\" {{
  %x = input \"x\" data : f32[batch, 64, 16, 16]:nhwc
  %t = input \"t\" target : i64[batch]
  %w = parameter \"w\" trained fill(1) : f32[64, 64, 3, 3]:nhwc
  %v = parameter \"v\" trained fill(1) : f32[64, 16, 3, 3]
  %y:2 = conv(%x, %w) {{{window}, groups = 1, moments = true, schedule = implicit_gemm({TILE}, splits = 1)}} : f32[batch, 64, 16, 16]:nhwc, f64[129] \"tiles\"
  %dw = conv_backward_weight(%x, %y) {{{window}, groups = 1, kernel = [3, 3], schedule = implicit_gemm({TILE}, splits = 8)}} : f32[64, 64, 3, 3]:nhwc \"parts\"
  %d = conv_backward_weight(%x, %y) {{{window}, groups = 1, kernel = [3, 3], schedule = implicit_gemm({TILE}, splits = 1)}} : f32[64, 64, 3, 3]:nhwc \"whole\"
  %g = conv(%y, %v) {{{window}, groups = 4}} : f32[batch, 64, 16, 16]:nhwc \"copy\"
  %p = conv(%y, %v) {{{window}, groups = 4}} : f32[batch, 64, 16, 16] \"no copy\"
  %m = moments(%g) : f64[129] \"moments\"
  %s = reduce(%p) {{function = sum, axes = [2, 3]}} : f32[batch, 64] \"short\"
  %c = reduce(%p) {{function = sum, axes = [0, 2, 3]}} : f32[64] \"long\"
  %r = reduce(%p) {{function = sum, axes = [3]}} : f32[batch, 64, 16] \"rows\"
  %l = softmax_cross_entropy(%s, %t) : f64[1] \"loss\"
  return output \"m\" %m, output \"c\" %c, gradient \"w\" %dw, loss %l, output \"d\" %d, output \"r\" %r
}}"
    ))
    .unwrap();
    let bytes = |name: &str| {
        let id = graph.nodes().find(|&id| graph.node(id).name == name).unwrap();
        graph.gpu_workspace_bytes(id, 32)
    };
    // Three numbers for every tile of 64 of 8192 rows and every channel.
    assert_eq!(bytes("tiles"), 128 * 3 * 64 * 4);
    assert_eq!(bytes("parts"), 8 * 64 * 64 * 9 * 4);
    assert_eq!(bytes("whole"), 0);
    // The weights with output channels innermost, where these are neighbours in the result.
    assert_eq!(bytes("copy"), 64 * 16 * 9 * 4);
    assert_eq!(bytes("no copy"), 0);
    // 16 terms a thread: 512 parts of two sums, and of one.
    assert_eq!(bytes("moments"), 2 * 64 * 512 * 8);
    assert_eq!(bytes("long"), 64 * 512 * 8);
    assert_eq!(bytes("short"), 32 * 64 * 16 * 8);
    // There are results for half of the threads.
    assert_eq!(bytes("rows"), 0);
    // A part for every sample.
    assert_eq!(bytes("loss"), 32 * 8);
}

/// A tile of tensor cores but for its parts.
const TILE: &str =
    "rows = 64, columns = 64, depth = 32, warp_rows = 32, warp_columns = 32, stages = 3, resident = 4";

#[test]
fn filters_are_padded_to_whole_blocks() {
    let filter = |sizes: &[usize], block| TensorType {
        layout: Layout::Filter(block),
        ..TensorType::fixed(DType::F32, sizes)
    };
    assert_eq!(filter(&[20, 3, 5, 5], 16).bytes(1), Some(32 * 75 * 4));
    assert_eq!(filter(&[32, 3, 5], 16).bytes(1), Some(32 * 15 * 4));
    assert_eq!(filter(&[20, 3], 8).to_string(), "f32[20, 3]:filter8");
    let transformed = TensorType {
        layout: Layout::Winograd(32),
        ..filter(&[40, 3, 3, 3], 16)
    };
    assert_eq!(transformed.bytes(1), Some(64 * 3 * 36 * 4));
    assert_eq!(transformed.to_string(), "f32[40, 3, 3, 3]:winograd32");
}

#[test]
fn moments_take_memory_for_every_block_of_rows() {
    let text = "graph \"g\" {
  %x = input \"x\" data : f32[batch, 16, 9, 8]
  %w = parameter \"w\" trained fill(1) : f32[24, 16, 1, 1]
  %y:2 = conv(%x, %w) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], groups = 1, moments = true} : f32[batch, 24, 9, 8], f64[49]
  return output \"y\" %y#0, output \"s\" %y#1
}";
    let mut graph = parse(text).unwrap();
    let id = find(&graph, "conv");
    let mut bytes = |schedule: &str| {
        graph.set_schedule(id, Some(schedule.parse().unwrap()));
        graph.partial_bytes(id, 32)
    };
    let of_block = 3 * 24 * 8;
    // Four rows, four and one.
    assert_eq!(
        bytes("pointwise(lanes = 8, pixels = 4, vectors = 2, rows = 4)"),
        32 * 3 * of_block
    );
    // Rows that are shorter than a tile count as one.
    assert_eq!(
        bytes("direct(lanes = 16, pixels = 14, vectors = 2, rows = 4)"),
        32 * of_block
    );
    // A plain result is read again by threads that share its channels; so are rows so short that their sums would take as much
    // memory.
    assert_eq!(bytes("general"), 0);
    assert_eq!(
        bytes("pointwise(lanes = 8, pixels = 4, vectors = 2, rows = 1)"),
        0
    );
}
