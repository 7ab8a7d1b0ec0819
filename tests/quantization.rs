//! Quantised embeddings, byte for byte those of the reference.

mod common;

use common::search::{inputs, tensor};
use mpnet::ndarray::{Array2, arr2, s};
use mpnet::quantization::{
    EmbeddingPrecision, QuantizedEmbeddings, Ranges, dequantize_int8, dequantize_uint8,
    quantize_embeddings, quantize_int8, quantize_uint8,
};
use mpnet::{Error, FileProblem, InputProblem, TensorProblem};

#[test]
fn bytes_of_the_reference() {
    let (queries, corpus, ranges) = inputs();
    let given = Ranges::new(ranges).unwrap();
    let calibrated = Ranges::calibrate(&queries.view()).unwrap();
    for precision in EmbeddingPrecision::ALL {
        let cases = [("own", None), ("ranges", Some(&given)), ("calibrated", Some(&calibrated))];
        for (name, ranges) in cases {
            let got = quantize_embeddings(&corpus.view(), precision, ranges).unwrap();
            let want = |bytes: Vec<u8>| Array2::from_shape_vec(got.view().dim(), bytes).unwrap();
            let want = || want(tensor(&format!("quantized/{precision}/{name}")));
            let want = match precision {
                EmbeddingPrecision::Float32 => QuantizedEmbeddings::Float32(corpus.clone()),
                EmbeddingPrecision::Int8 => QuantizedEmbeddings::Int8(want().mapv(|x| x as i8)),
                EmbeddingPrecision::Uint8 => QuantizedEmbeddings::Uint8(want()),
                EmbeddingPrecision::Binary => QuantizedEmbeddings::Binary(want().mapv(|x| x as i8)),
                EmbeddingPrecision::Ubinary => QuantizedEmbeddings::Ubinary(want()),
            };
            assert_eq!(got, want, "{precision}, {name}");
        }
    }
}

/// A column's own largest value lands on 254.99998, and values outside the ranges do not wrap
/// around.
#[test]
fn rounding_and_clipping() {
    let rows = Array2::from_shape_fn((5, 10), |(i, j)| (0.9 * i as f32 + 0.4 * j as f32).sin());
    let bytes = quantize_uint8(&rows.view(), &Ranges::calibrate(&rows.view()).unwrap()).unwrap();
    assert_eq!(bytes.row(2).to_vec(), [254, 232, 192, 150, 87, 51, 8, 0, 0, 29]);
    let narrow = Ranges::new(arr2(&[[-0.5, 0.25], [0.5, 0.25]])).unwrap();
    let outside = arr2(&[[-9.0, 9.0], [9.0, -9.0]]);
    let bytes = quantize_int8(&outside.view(), &narrow).unwrap();
    assert_eq!(bytes, arr2(&[[-128, -120], [127, -128]]));
}

#[test]
fn back_within_a_step() {
    let (_, corpus, _) = inputs();
    let ranges = Ranges::calibrate(&corpus.view()).unwrap();
    let signed = quantize_int8(&corpus.view(), &ranges).unwrap();
    let unsigned = quantize_uint8(&corpus.view(), &ranges).unwrap();
    let back = dequantize_int8(&signed.view(), &ranges).unwrap();
    assert_eq!(back, dequantize_uint8(&unsigned.view(), &ranges).unwrap());
    for ((_, k), difference) in (&corpus - &back).indexed_iter() {
        let step = (ranges.as_array()[[1, k]] - ranges.as_array()[[0, k]]) / 255.0;
        assert!((-1e-6..=step * 1.001 + 1e-6).contains(difference), "{k}: {difference}, {step}");
    }
}

#[test]
fn ranges_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ranges.safetensors");
    let (_, corpus, _) = inputs();
    let ranges = Ranges::calibrate(&corpus.view()).unwrap();
    ranges.save(&path).unwrap();
    assert_eq!(Ranges::load(&path).unwrap(), ranges);

    assert!(matches!(Ranges::load(directory.path().join("none")), Err(Error::Io { .. })));
    assert!(matches!(Ranges::load("/"), Err(Error::Io { .. })));
    assert!(matches!(ranges.save(directory.path()), Err(Error::Io { .. })));
    std::fs::write(&path, "no tensors").unwrap();
    assert!(matches!(
        Ranges::load(&path),
        Err(Error::File { problem: FileProblem::Safetensors { .. }, .. })
    ));
    let other = common::data("search.safetensors");
    assert_eq!(Ranges::load(other).unwrap().width(), 20, "a file with more in it will do");
    let tensors = common::data("goldens.safetensors");
    let error = Ranges::load(tensors).unwrap_err();
    assert!(
        matches!(&error, Error::Tensor { name, problem: TensorProblem::Missing { .. }, .. } if name == "ranges"),
        "{error}"
    );
    let write = |dtype, shape: Vec<usize>, bytes: usize| {
        let bytes = vec![0; bytes];
        let tensor = safetensors::tensor::TensorView::new(dtype, shape, &bytes).unwrap();
        std::fs::write(&path, safetensors::serialize([("ranges", tensor)], None).unwrap()).unwrap();
        Ranges::load(&path)
    };
    let error = write(safetensors::Dtype::F32, vec![3, 4], 48);
    assert!(
        matches!(error, Err(Error::Tensor { problem: TensorProblem::Shape { .. }, .. })),
        "{error:?}"
    );
    let error = write(safetensors::Dtype::F64, vec![2, 4], 64);
    assert!(
        matches!(error, Err(Error::Tensor { problem: TensorProblem::Dtype { .. }, .. })),
        "{error:?}"
    );
    assert_eq!(write(safetensors::Dtype::F32, vec![2, 0], 0).unwrap().width(), 0);
}

#[test]
fn wrong_input_is_an_error() {
    let (_, mut corpus, _) = inputs();
    let ranges = Ranges::calibrate(&corpus.view()).unwrap();
    let narrow = corpus.slice(s![.., ..7]);
    let error = quantize_int8(&narrow, &ranges).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Input { problem: InputProblem::Width { found: 20, expected: 7, .. }, .. }
        ),
        "{error}"
    );
    let error = dequantize_uint8(&Array2::zeros((1, 21)).view(), &ranges).unwrap_err();
    assert!(
        matches!(error, Error::Input { problem: InputProblem::Width { expected: 21, .. }, .. }),
        "{error}"
    );
    let one = Ranges::calibrate(&corpus.slice(s![..1, ..]));
    assert!(matches!(one, Err(Error::Option { option: "calibration_embeddings", .. })));
    let none = Ranges::calibrate(&corpus.slice(s![..0, ..]));
    assert!(matches!(none, Err(Error::Input { problem: InputProblem::Empty, .. })));
    let single = corpus.slice(s![..1, ..]);
    assert!(quantize_embeddings(&single, EmbeddingPrecision::Int8, None).is_err());
    let reversed = Ranges::new(arr2(&[[0.0, 1.0], [1.0, 0.5]]));
    assert!(reversed.unwrap_err().to_string().contains("dimension 1"));
    assert!(matches!(Ranges::new(Array2::zeros((3, 2))), Err(Error::Option { .. })));
    assert!(matches!(
        Ranges::new(arr2(&[[f32::NAN], [1.0]])),
        Err(Error::Input { problem: InputProblem::NotFinite { .. }, .. })
    ));
    assert!("int4".parse::<EmbeddingPrecision>().unwrap_err().to_string().contains("ubinary"));
    corpus[[4, 2]] = f32::NAN;
    for precision in EmbeddingPrecision::ALL {
        let error = quantize_embeddings(&corpus.view(), precision, Some(&ranges)).unwrap_err();
        assert!(
            matches!(error, Error::Input { problem: InputProblem::NotFinite { row: 4, .. }, .. }),
            "{error}"
        );
    }
    assert!(matches!(
        Ranges::calibrate(&corpus.view()),
        Err(Error::Input { problem: InputProblem::NotFinite { row: 4, .. }, .. })
    ));
    for precision in EmbeddingPrecision::ALL {
        let none = corpus.slice(s![..0, ..]);
        let none = quantize_embeddings(&none, precision, None).unwrap();
        let bits = precision.name().ends_with("binary");
        assert_eq!(none.view().dim(), (0, if bits { 3 } else { 20 }));
        assert_eq!(none.precision(), precision);
    }
}

/// A range whose width is beyond an `f32` would put everything into bucket 0.
#[test]
fn ranges_too_wide_for_f32_are_refused() {
    let wide = arr2(&[[0.0_f32, -3e38], [1.0, 3e38]]);
    for error in [
        Ranges::calibrate(&wide.view()).unwrap_err(),
        Ranges::new(wide.clone()).unwrap_err(),
        quantize_embeddings(&wide.view(), EmbeddingPrecision::Int8, None).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Option { option: "ranges", .. }), "{error}");
        assert!(error.to_string().contains("wider than"), "{error}");
    }
    let error = Ranges::calibrate(&wide.view()).unwrap_err().to_string();
    assert!(error.contains("dimension 1 reach from -3e38 to 3e38"), "{error}");

    // As wide as can be, and values far outside: clipped, and back within the range.
    let ranges = Ranges::new(arr2(&[[-3e38, -1.0], [0.0, 1.0]])).unwrap();
    let values = arr2(&[[3e38, 3e38], [-3e38, -3e38], [-1.5e38, 0.0]]);
    let bytes = quantize_uint8(&values.view(), &ranges).unwrap();
    assert_eq!(bytes, arr2(&[[255, 255], [0, 0], [127, 127]]));
    let back = dequantize_uint8(&bytes.view(), &ranges).unwrap();
    assert!(back.iter().all(|x| x.is_finite()), "{back}");
}

#[test]
fn threads_do_not_show() {
    let rows = Array2::from_shape_fn((300, 37), |(i, k)| ((i * 41 + k * 7) as f32).sin());
    let ranges = Ranges::calibrate(&rows.view()).unwrap();
    let all =
        || EmbeddingPrecision::ALL.map(|p| quantize_embeddings(&rows.view(), p, Some(&ranges)));
    let (one, three) = (common::pool(1).install(all), common::pool(3).install(all));
    for (one, three) in one.into_iter().zip(three) {
        assert_eq!(one.unwrap(), three.unwrap());
    }
    let columns = rows.t().as_standard_layout().into_owned();
    for precision in EmbeddingPrecision::ALL {
        let quantize = |rows: mpnet::ndarray::ArrayView2<f32>| {
            quantize_embeddings(&rows, precision, Some(&ranges)).unwrap()
        };
        assert_eq!(quantize(columns.t()), quantize(rows.view()), "{precision}");
    }
}
