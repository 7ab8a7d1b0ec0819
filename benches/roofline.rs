//! How far each case is from what the machine allows: the seconds of a call beside the larger of
//! two that no program can be faster than, for its arithmetic at the rate of multiply-adds in
//! registers, and for reading the weights once at the bandwidth of memory. Prints a table in
//! Markdown.
//!
//! ```sh
//! cargo bench --bench roofline -- [--precision f32|bf16|int8] [--seconds 3]
//! ```

mod common;
#[path = "common/peak.rs"]
mod peak;

use std::hint::black_box;
use std::time::{Duration, Instant};

use mpnet::{Config, Isa, Precision, SentenceEncoder};

use common::{Case, Model};
use peak::{read_bandwidth, shared_multiply_add_peak};

fn main() {
    let (mut precisions, mut seconds) = (Precision::ALL.to_vec(), 3.0);
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{flag} needs a value"));
        match flag.as_str() {
            "--precision" => precisions = vec![value().parse().expect("f32, bf16 or int8")],
            "--seconds" => seconds = value().parse().expect("a number of seconds"),
            // Cargo adds it.
            "--bench" => {}
            _ => panic!("{flag} is not known; see the top of benches/roofline.rs"),
        }
    }
    let isa = Isa::detect().expect("MPNET_ISA names an instruction set of this machine");
    let before = Machine::measure(isa);
    let model = Model::find();
    let mut rows = Vec::new();
    for precision in precisions {
        let encoder = model.encoder(precision);
        for case in Case::all() {
            eprintln!("{precision}, {}", case.name);
            let measured = measure(&encoder, &case, Duration::from_secs_f64(seconds));
            let work = Work::of(encoder.model().config(), precision, &case);
            rows.push((precision, case.name, measured, work));
        }
    }
    // Others may have had a part of the machine for a while.
    let machine = before.or_better(Machine::measure(isa));
    let threads = rayon::current_num_threads();
    println!(
        "{isa}, {threads} threads, {:.1} GB/s from memory; in registers",
        machine.bandwidth / 1e9
    );
    for precision in Precision::ALL {
        println!("- {precision}: {:.0} GFLOP/s", machine.peak(precision) / 1e9);
    }
    println!(
        "\n| precision | case | measured, ms | arithmetic, ms | weights, ms | measured / larger |"
    );
    println!("|---|---|---|---|---|---|");
    for (precision, case, measured, work) in rows {
        let (arithmetic, weights) = (work.arithmetic(&machine), work.bytes / machine.bandwidth);
        let [m, a, w] = [measured, arithmetic, weights].map(|seconds| 1e3 * seconds);
        let ratio = measured / arithmetic.max(weights);
        println!("| {precision} | {case} | {m:.2} | {a:.2} | {w:.2} | {ratio:.2} |");
    }
}

/// What the machine can do at most, with all threads.
struct Machine {
    /// Operations a second, as in [`Precision::ALL`].
    peaks: [f64; 3],
    /// Bytes a second.
    bandwidth: f64,
}

impl Machine {
    fn measure(isa: Isa) -> Self {
        // The scalar tier multiplies by another crate, which chooses an instruction set by itself:
        // it is held to the best.
        let peak = |precision| {
            let peak = shared_multiply_add_peak(isa, precision);
            let best = || shared_multiply_add_peak(Isa::best(), Precision::F32);
            peak.or_else(best).unwrap_or(f64::INFINITY)
        };
        Self { peaks: Precision::ALL.map(peak), bandwidth: read_bandwidth() }
    }

    /// The larger of each figure.
    fn or_better(mut self, other: Self) -> Self {
        self.bandwidth = self.bandwidth.max(other.bandwidth);
        for (peak, other) in self.peaks.iter_mut().zip(other.peaks) {
            *peak = peak.max(other);
        }
        self
    }

    fn peak(&self, precision: Precision) -> f64 {
        let at = Precision::ALL.iter().position(|&other| other == precision);
        self.peaks[at.expect("one of all")]
    }
}

/// What a call has to do.
struct Work {
    /// Operations of each precision.
    operations: Vec<(Precision, f64)>,
    /// Of the weights that it multiplies with.
    bytes: f64,
}

impl Work {
    fn of(config: &Config, precision: Precision, case: &Case) -> Self {
        let (d, f) = (config.hidden_size as f64, config.intermediate_size as f64);
        let layers = config.num_hidden_layers as f64;
        let all = layers * (4.0 * d * d + 2.0 * d * f);
        // With 8-bit integers one layer's attention and one product of another stay in bf16, and
        // all attention is computed in it.
        let in_bf16 = if precision == Precision::Int8 { 4.0 * d * d + d * f } else { 0.0 };
        let tokens = case.all_tokens() as f64;
        let scores = case.texts.len() as f64 * (case.tokens * case.tokens) as f64;
        let attention = layers * 2.0 * 2.0 * scores * d;
        let of_attention =
            if precision == Precision::F32 { Precision::F32 } else { Precision::Bf16 };
        let operations = vec![
            (precision, 2.0 * tokens * (all - in_bf16)),
            (Precision::Bf16, 2.0 * tokens * in_bf16),
            (of_attention, attention),
        ];
        Self {
            operations,
            bytes: bytes(precision) * (all - in_bf16) + bytes(Precision::Bf16) * in_bf16,
        }
    }

    /// Seconds.
    fn arithmetic(&self, machine: &Machine) -> f64 {
        self.operations.iter().map(|&(precision, n)| n / machine.peak(precision)).sum()
    }
}

/// Of a weight.
fn bytes(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 4.0,
        Precision::Bf16 => 2.0,
        Precision::Int8 => 1.0,
        other => unreachable!("{other} is not one of all"),
    }
}

/// The median of calls one after another for that long, three at least.
fn measure(encoder: &SentenceEncoder, case: &Case, enough: Duration) -> f64 {
    case.check(encoder);
    let begin = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < 3 || begin.elapsed() < enough {
        let start = Instant::now();
        black_box(encoder.encode(&case.texts)).expect("the texts can be encoded");
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
