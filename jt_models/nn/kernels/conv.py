"""Convolution by oneDNN, and as a product of matrices.

Jittor leaves the layout of pictures to oneDNN 2.2, which on AVX-512 takes channels last. Bringing pictures and weights
into that layout and back often took longer than the convolution itself. Here pictures are in blocks of 16 channels,
which convert fast, and a 1x1 convolution is one matrix product for each picture, without any conversion.
"""
from jt_models.boot import jt, onednn_flags
from jt_models.nn.kernels.kernel import Kernel, product, total, transposed

_HEADER = """
    #include <cstring>
    #include <dnnl.hpp>
    #include <omp.h>
    #include "executor.h"

    struct Convolution {
        using Tag = dnnl::memory::format_tag;
        using Dims = dnnl::memory::dims;

        dnnl::engine engine{dnnl::engine::kind::cpu, 0};
        dnnl::stream stream{engine};
        Dims pictures, weights, results, strides, before, after, dilation{0, 0};
        bool grouped;

        Convolution(Dims pictures, Dims kernels, Dims results, Dims strides, Dims padding, int64_t groups):
            pictures(pictures), weights(kernels), results(results), strides(strides), before(padding), after(padding),
            grouped(groups > 1) {
            // Rows and columns at the end that no window reaches count as cut off.
            for (int i : {0, 1})
                after[i] = (results[2 + i] - 1) * strides[i] + kernels[2 + i] - pictures[2 + i] - before[i];
            if (grouped) weights = {groups, kernels[0] / groups, kernels[1], kernels[2], kernels[3]};
        }

        static dnnl::memory::desc layout(const Dims& sizes, Tag tag) {
            return {sizes, dnnl::memory::data_type::f32, tag};
        }
        dnnl::memory plain(const Dims& sizes, const float* data) const {
            const Tag tag = sizes.size() == 1 ? Tag::x : sizes.size() == 4 ? Tag::nchw : Tag::goihw;
            return {layout(sizes, tag), engine, const_cast<float*>(data)};
        }
        // Pictures of few channels stay as they are: oneDNN's kernels for a network's first layer read those.
        dnnl::memory::desc source(Tag tag) const { return layout(pictures, pictures[1] < 16 ? Tag::any : tag); }
        dnnl::memory::desc any(const Dims& sizes) const { return layout(sizes, Tag::any); }

        // What `make` describes, with pictures in blocks of 16 channels if oneDNN has a fast kernel for that.
        template <class Make> auto chosen(Make make) const {
            #ifdef __AVX512F__
            try {
                auto found = make(Tag::nChw16c);
                if (!std::strncmp(found.impl_info_str(), "jit", 3)) return found;
            } catch (const dnnl::error&) {}
            #endif
            return make(Tag::any);
        }
        auto forward(bool biased) const {
            using namespace dnnl;
            return chosen([&](Tag tag) {
                const auto kind = prop_kind::forward_training;
                const auto how = algorithm::convolution_direct;
                const auto from = source(tag), to = layout(results, tag);
                const auto shift = biased ? any({results[1]}) : memory::desc();
                return convolution_forward::primitive_desc(convolution_forward::desc(
                    kind, how, from, any(weights), shift, to, strides, dilation, before, after), engine);
            });
        }

        // A memory in the layout `wanted`: `given` itself, or space for it from Jittor's pool.
        struct Converted {
            jittor::Allocation space;
            dnnl::memory memory;

            Converted(const dnnl::memory& given, const dnnl::memory::desc& wanted, const dnnl::engine& engine):
                space(wanted == given.get_desc() ? jittor::Allocation()
                                                 : jittor::Allocation(jittor::exe.allocator, wanted.get_size())),
                memory(space.ptr ? dnnl::memory(wanted, engine, space.ptr) : given) {}
        };
        Converted input(dnnl::memory given, const dnnl::memory::desc& wanted) {
            Converted found(given, wanted, engine);
            if (found.space.ptr) dnnl::reorder(given, found.memory).execute(stream, given, found.memory);
            return found;
        }
        void output(Converted& found, dnnl::memory given) {
            if (found.space.ptr) dnnl::reorder(found.memory, given).execute(stream, found.memory, given);
            stream.wait();
        }
    };
"""

_START = """
    Convolution c({x_shape0, x_shape1, x_shape2, x_shape3}, {w_shape0, w_shape1, w_shape2, w_shape3},
                  {y_shape0, y_shape1, y_shape2, y_shape3}, {int64_t(data["down"]), int64_t(data["right"])},
                  {int64_t(data["top"]), int64_t(data["left"])}, int64_t(data["groups"]));
    const int64_t B = x_shape0, I = x_shape1, O = y_shape1, S = y_shape2 * y_shape3, threads = omp_get_max_threads();
    const Convolution::Dims step{1, 1}, none{0, 0};
    // With fewer pixels oneDNN's preparation of the weights, once for each picture, would cost more than it saves.
    const bool product = !c.grouped && w_shape2 * w_shape3 == 1 && c.strides == step && c.before == none && S >= 128;
    // Products are spread over the threads by pictures, and if these do not come out even, by rows too.
    const int64_t parts = B % threads ? threads : 1;
"""

_CONV = """
    @alias(x, in0) @alias(w, in1) @alias(y, out0)
""" + _START + """
    if (product) {
        #pragma omp parallel for
        for (int64_t i = 0; i < B * parts; i++) {
            const int64_t b = i / parts, from = i % parts * O / parts, end = (i % parts + 1) * O / parts;
            float* rows = y_p + (b * O + from) * S;
            dnnl_sgemm('N', 'N', end - from, S, I, 1.f, w_p + from * I, I, x_p + b * I * S, S, 0.f, rows, S);
            if (BIASED) for (int64_t o = from; o < end; o++) for (int64_t s = 0; s < S; s++) *rows++ += SHIFT[o];
        }
    } else {
        const auto chosen = c.forward(BIASED);
        auto pictures = c.input(c.plain(c.pictures, x_p), chosen.src_desc());
        auto weights = c.input(c.plain(c.weights, w_p), chosen.weights_desc());
        const auto result = c.plain(c.results, y_p);
        Convolution::Converted made(result, chosen.dst_desc(), c.engine);
        std::unordered_map<int, dnnl::memory> given{
            {DNNL_ARG_SRC, pictures.memory}, {DNNL_ARG_WEIGHTS, weights.memory}, {DNNL_ARG_DST, made.memory}};
        if (BIASED) given[DNNL_ARG_BIAS] = c.plain({O}, SHIFT);
        dnnl::convolution_forward(chosen).execute(c.stream, given);
        c.output(made, result);
    }
"""

_INPUT_GRAD = """
    @alias(w, in0) @alias(y, in1) @alias(x, out0)
""" + _START + """
    if (product) {
        #pragma omp parallel for
        for (int64_t i = 0; i < B * parts; i++) {
            const int64_t b = i / parts, from = i % parts * I / parts, end = (i % parts + 1) * I / parts;
            dnnl_sgemm('T', 'N', end - from, S, O, 1.f, w_p + from, I, y_p + b * O * S, S, 0.f,
                       x_p + (b * I + from) * S, S);
        }
    } else {
        using namespace dnnl;
        const auto forward = c.forward(false);
        const auto chosen = c.chosen([&](Convolution::Tag tag) {
            return convolution_backward_data::primitive_desc(convolution_backward_data::desc(
                algorithm::convolution_direct, c.layout(c.pictures, tag), c.any(c.weights), c.layout(c.results, tag),
                c.strides, c.dilation, c.before, c.after), c.engine, forward);
        });
        auto slopes = c.input(c.plain(c.results, y_p), chosen.diff_dst_desc());
        auto weights = c.input(c.plain(c.weights, w_p), chosen.weights_desc());
        const auto result = c.plain(c.pictures, x_p);
        Convolution::Converted made(result, chosen.diff_src_desc(), c.engine);
        convolution_backward_data(chosen).execute(c.stream, {
            {DNNL_ARG_DIFF_DST, slopes.memory}, {DNNL_ARG_WEIGHTS, weights.memory}, {DNNL_ARG_DIFF_SRC, made.memory}});
        c.output(made, result);
    }
"""

_WEIGHT_GRAD = """
    @alias(x, in0) @alias(y, in1) @alias(w, out0)
""" + _START + """
    if (product) {
        #pragma omp parallel for
        for (int64_t i = 0; i < threads; i++) {
            const int64_t from = i * O / threads, end = (i + 1) * O / threads;
            for (int64_t b = 0; b < B; b++)
                dnnl_sgemm('N', 'T', end - from, I, S, 1.f, y_p + (b * O + from) * S, S, x_p + b * I * S, S,
                           b ? 1.f : 0.f, w_p + from * I, I);
        }
    } else {
        using namespace dnnl;
        const auto forward = c.forward(false);
        const auto chosen = c.chosen([&](Convolution::Tag tag) {
            return convolution_backward_weights::primitive_desc(convolution_backward_weights::desc(
                algorithm::convolution_direct, c.source(tag), c.any(c.weights), c.layout(c.results, tag), c.strides,
                c.dilation, c.before, c.after), c.engine, forward);
        });
        auto pictures = c.input(c.plain(c.pictures, x_p), chosen.src_desc());
        auto slopes = c.input(c.plain(c.results, y_p), chosen.diff_dst_desc());
        const auto result = c.plain(c.weights, w_p);
        Convolution::Converted made(result, chosen.diff_weights_desc(), c.engine);
        convolution_backward_weights(chosen).execute(c.stream, {
            {DNNL_ARG_SRC, pictures.memory}, {DNNL_ARG_DIFF_DST, slopes.memory},
            {DNNL_ARG_DIFF_WEIGHTS, made.memory}});
        c.output(made, result);
    }
"""

# A single float32 sum over a whole batch of pictures would lose half its digits.
_BIAS_GRAD = """
    @alias(g, in0) @alias(db, out0)
    const int64_t B = g_shape0, C = g_shape1, S = g_shape2 * g_shape3;
    #pragma omp parallel for
    for (int64_t c = 0; c < C; c++) {
        double sum = 0;
        for (int64_t b = 0; b < B; b++) for (int64_t s = 0; s < S; s++) sum += g_p[(b * C + c) * S + s];
        db_p[c] = sum;
    }
"""


def result_sides(x, weight, stride, padding, groups: int) -> list[int]:
    """Height and width of the result. ValueError: a weight for other channels, or larger than the picture."""
    sides = [(side + 2 * padded - kernel) // step + 1 for side, padded, kernel, step
             in zip(x.shape[2:], padding, weight.shape[2:], stride)]
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups or min(sides) < 1:
        raise ValueError(f"a weight {tuple(weight.shape)} in {groups} groups with padding {padding} does not fit an "
                         f"input {tuple(x.shape)}")
    return sides


def convolved(x, weight, stride, padding, groups: int):
    """The convolution as one product of matrices a group, in Jittor's own operators."""
    batch, outputs = x.shape[0], weight.shape[0]
    high, wide = result_sides(x, weight, stride, padding, groups)
    y = product(_matrices(weight, groups), _windows(x, weight, (high, wide), stride, padding, groups))
    return y.reshape(outputs, batch, high, wide).permute(1, 0, 2, 3)


def convolved_grad(x, weight, g, stride, padding, groups: int) -> tuple:
    """The gradients of x and weight, where g is that of the result."""
    batch, outputs, high, wide = g.shape
    g = g.permute(1, 0, 2, 3).reshape(groups, outputs // groups, -1)
    g = g if groups > 1 else g.reshape(outputs, -1)
    dw = product(g, transposed(_windows(x, weight, (high, wide), stride, padding, groups)))
    windows = product(transposed(_matrices(weight, groups)), g)
    windows = windows.reshape(x.shape[1], *weight.shape[2:], batch, high, wide)
    # Each pixel collects from the windows that hold it: those at which the division by the stride comes out even.
    (down, right), (top, left) = stride, padding
    rows, columns = f"(i2+{top}-i4)", f"(i3+{left}-i5)"
    shares = windows.reindex([*x.shape, *weight.shape[2:]],
                             ["i1", "i4", "i5", "i0", f"{rows}/{down}", f"{columns}/{right}"],
                             overflow_conditions=[f"{rows}<0", f"{columns}<0", f"{rows}%{down}!=0",
                                                  f"{columns}%{right}!=0"])
    return total(shares, [4, 5]), dw.reshape(weight.shape)


def _matrices(weight, groups: int):
    """The weights of a result's pixel: (out, in k l), and (groups, out / groups, in k l / groups) of several groups."""
    return weight.reshape(weight.shape[0], -1) if groups == 1 else weight.reshape(groups, weight.shape[0] // groups, -1)


def _windows(x, weight, sides, stride, padding, groups: int):
    """What each pixel of the result sees: (in k l, B P Q), and (groups, in k l / groups, B P Q) of several groups."""
    shape = [x.shape[1], *weight.shape[2:], x.shape[0], *sides]
    found = x.reindex(shape, ["i3", "i0", f"i4*{stride[0]}+i1-{padding[0]}", f"i5*{stride[1]}+i2-{padding[1]}"])
    rows = weight.shape[1] * weight.shape[2] * weight.shape[3]
    return found.reshape(rows, -1) if groups == 1 else found.reshape(groups, rows, -1)


class Conv(Kernel):
    """x (B, in, H, W) convolved with weight (out, in / groups, height, width), plus bias (out,) or None.

    stride, padding: (rows, columns). ValueError: a weight for another number of channels, or larger than the picture.
    """

    def __init__(self, stride: tuple[int, int], padding: tuple[int, int], groups: int):
        self.stride, self.padding, self.groups = stride, padding, groups
        self.data = dict(zip(("down", "right", "top", "left", "groups"), (*stride, *padding, groups)))

    def execute(self, x, weight, bias):
        self.kept, source = (x, weight, bias), _CONV
        given = [x, weight] if bias is None else [x, weight, bias]
        sides = result_sides(x, weight, self.stride, self.padding, self.groups)
        for word, value in (("BIASED", len(given) - 2), ("SHIFT", f"in{len(given) - 1}_p")):
            source = source.replace(word, str(value))
        return self.code([x.shape[0], weight.shape[0], *sides], given, source)

    def grad(self, g):
        x, weight, bias = self.kept
        return (self.code(x.shape, [weight, g], _INPUT_GRAD), self.code(weight.shape, [x, g], _WEIGHT_GRAD),
                None if bias is None else jt.code(bias.shape, g.dtype, [g], cpu_src=_BIAS_GRAD))

    def code(self, shape, given: list, source: str):
        with jt.flag_scope(compile_options={onednn_flags(): 1}):
            return jt.code(shape, "float32", given, cpu_header=_HEADER, cpu_src=source, data=self.data)

    def plain(self, x, weight, bias):
        self.kept = x, weight, bias
        y = convolved(x, weight, self.stride, self.padding, self.groups)
        return y if bias is None else y + bias.reshape(1, -1, 1, 1)

    def plain_grad(self, g):
        x, weight, bias = self.kept
        return (*convolved_grad(x, weight, g, self.stride, self.padding, self.groups),
                None if bias is None else total(g, (0, 2, 3)))
