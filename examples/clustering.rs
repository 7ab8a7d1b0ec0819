//! What are these texts about?
//!
//! ```text
//! cargo run --release --example clustering [-- --model DIR] [--input FILE] [--clusters K] [--output FILE.svg]
//! ```
//!
//! Groups texts by k-means on their embeddings, prints the most typical of each group, and draws
//! all of them as points of a plane (their two principal components).

mod common;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use common::cli::{self, Flags};
use common::{Result, input, shipped};
use mpnet::SentenceEncoder;
use mpnet::mining::{Clustering, KMeans};
use mpnet::ndarray::{Array1, Array2, Axis};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const HELP: &str = "\
usage: clustering [--model DIR] [--input FILE] [--clusters K] [--top N] [--seed S] [--output FILE.svg]

Groups texts by their meaning.

  --model DIR       a sentence-transformers directory with an MPNet model (default: $MPNET_MODEL_DIR,
                    else the cache that fetch_model fills)
  --input FILE      one text a line, or a JSON string a line if it is a .jsonl file (default: captions
                    of photographs, examples/data/sentences.txt)
  --clusters K      how many groups (default: 10)
  --top N           how many texts of each group are printed (default: 4)
  --seed S          of the random numbers that k-means begins with (default: 0)
  --output FILE.svg the picture (default: clusters.svg)
  --help            print this";

struct Options {
    model: Option<PathBuf>,
    input: PathBuf,
    kmeans: KMeans,
    top: usize,
    output: PathBuf,
}

fn main() -> ExitCode {
    cli::run(|| cluster(&read_flags()?))
}

fn read_flags() -> Result<Options> {
    let mut options = Options {
        model: None,
        input: shipped("sentences.txt"),
        kmeans: KMeans { n_init: 5, ..KMeans::new(10) },
        top: 4,
        output: "clusters.svg".into(),
    };
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--model" => options.model = Some(flags.path()?),
            "--input" => options.input = flags.path()?,
            "--clusters" => options.kmeans.n_clusters = flags.value()?,
            "--top" => options.top = flags.value()?,
            "--seed" => options.kmeans.seed = flags.value()?,
            "--output" => options.output = flags.path()?,
            _ => return Err(flags.unknown()),
        }
    }
    Ok(options)
}

fn cluster(options: &Options) -> Result<()> {
    let texts = input::texts(Some(&options.input))?;
    let encoder = SentenceEncoder::from_pretrained(&cli::require_model(options.model.clone())?)?;
    let embeddings = input::encode(&encoder, &texts)?;
    let clustering = options.kmeans.fit(&embeddings.view())?;

    let mut out = io::stdout().lock();
    let (n, k, rounds) = (texts.len(), options.kmeans.n_clusters, clustering.n_iter);
    writeln!(out, "{n} texts in {k} groups, after {rounds} rounds")?;
    for (group, members) in most_typical_first(&embeddings, &clustering).iter().enumerate() {
        writeln!(out, "\ngroup {}: {} texts", group + 1, members.len())?;
        for &text in members.iter().take(options.top) {
            writeln!(out, "  {}", texts[text])?;
        }
    }
    let file = options.output.display();
    draw(&options.output, &principal_components(&embeddings), &clustering)
        .map_err(|error| format!("cannot write `{file}`: {error}"))?;
    writeln!(out, "\nthe picture is in {file}")?;
    Ok(())
}

/// The texts of each group, the nearest to its centre first.
fn most_typical_first(embeddings: &Array2<f32>, clustering: &Clustering) -> Vec<Vec<usize>> {
    let mut groups = vec![Vec::new(); clustering.centroids.nrows()];
    for (text, &group) in clustering.labels.iter().enumerate() {
        let difference = &embeddings.row(text) - &clustering.centroids.row(group);
        groups[group].push((difference.dot(&difference), text));
    }
    let sorted = |mut group: Vec<(f32, usize)>| {
        group.sort_by(|a, b| a.0.total_cmp(&b.0));
        group.into_iter().map(|(_, text)| text).collect()
    };
    groups.into_iter().map(sorted).collect()
}

/// Each row in the two directions in which the rows differ most: `[B, D]` → `[B, 2]`.
///
/// By power iteration: multiplied with the covariance again and again, a vector turns into the
/// direction in which that is largest. For the second direction the first is taken out of the rows.
fn principal_components(embeddings: &Array2<f32>) -> Array2<f32> {
    let mean = embeddings.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(embeddings.ncols()));
    let mut rows = embeddings - &mean;
    let mut components = Array2::zeros((rows.nrows(), 2));
    for mut component in components.columns_mut() {
        // Any beginning will do that is not square to the result.
        let mut direction = Array1::from_shape_fn(rows.ncols(), |d| (d as f32 + 1.0).sin());
        for _ in 0..100 {
            direction = rows.t().dot(&rows.dot(&direction));
            let length = direction.dot(&direction).sqrt();
            direction /= length.max(f32::MIN_POSITIVE);
        }
        let along = rows.dot(&direction); // [B]
        let outer = along.view().insert_axis(Axis(1)).dot(&direction.insert_axis(Axis(0)));
        rows -= &outer;
        component.assign(&along);
    }
    components
}

/// A point for each text, in the colour of its group, and the group's number at the middle of its
/// points.
fn draw(file: &Path, points: &Array2<f32>, clustering: &Clustering) -> Result<()> {
    let root = SVGBackend::new(file, (900, 700)).into_drawing_area();
    root.fill(&WHITE)?;
    let range = |axis: usize| {
        let values = points.column(axis);
        let low = values.fold(f32::INFINITY, |low, &x| low.min(x));
        let high = values.fold(f32::NEG_INFINITY, |high, &x| high.max(x));
        let margin = 0.05 * (high - low).max(1e-6);
        low - margin..high + margin
    };
    let mut chart = ChartBuilder::on(&root).margin(20).build_cartesian_2d(range(0), range(1))?;
    let colour = |group: usize| Palette99::pick(group).mix(0.6);
    let point = |(text, &group): (usize, &usize)| {
        Circle::new((points[[text, 0]], points[[text, 1]]), 3, colour(group).filled())
    };
    chart.draw_series(clustering.labels.iter().enumerate().map(point))?;

    let groups = clustering.centroids.nrows();
    let style =
        TextStyle::from(("sans-serif", 22).into_font()).pos(Pos::new(HPos::Center, VPos::Center));
    let number = |group: usize| {
        let members: Vec<usize> =
            (0..points.nrows()).filter(|&text| clustering.labels[text] == group).collect();
        let middle = points.select(Axis(0), &members).mean_axis(Axis(0));
        let middle = middle.map_or((0.0, 0.0), |middle| (middle[0], middle[1]));
        Text::new((group + 1).to_string(), middle, style.clone())
    };
    chart.draw_series((0..groups).map(number))?;
    root.present()?;
    Ok(())
}
