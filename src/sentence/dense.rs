//! sentence-transformers' Dense module: a linear layer over the pooled vector.

use ndarray::Array2;
use serde::Deserialize;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::kernels::activation::Activation;
use crate::kernels::isa::Isa;
use crate::nn::Linear;

/// `activation(x · Wᵀ + b)`, and `x` added if the module has a residual path.
#[derive(Debug)]
pub(super) struct Dense {
    linear: Linear,
    activation: Activation,
    residual: Residual,
    output: usize,
}

#[derive(Debug)]
enum Residual {
    None,
    Identity,
    Projected(Linear),
}

#[derive(Deserialize)]
struct RawDense {
    in_features: usize,
    out_features: usize,
    bias: Option<bool>,
    activation_function: Option<String>,
    module_input_name: Option<String>,
    module_output_name: Option<String>,
    #[serde(default)]
    use_residual: bool,
}

impl Dense {
    /// Reads `config.json` and the weights in `folder`, for an input of width `input`.
    pub(super) fn load(files: &ModelFiles, folder: &str, input: usize, isa: Isa) -> Result<Self> {
        let name = format!("{folder}config.json");
        let raw: RawDense = match files.json(&name)? {
            Some(raw) => raw,
            None => return Err(files.require(&name).err().unwrap_or_else(|| gone(&name))),
        };
        let wrong = |field: &str, problem: String| Error::Field {
            file: files.label(&name),
            field: field.to_owned(),
            problem,
        };
        if raw.in_features != input {
            let problem = format!("is {}, but what comes in has width {input}", raw.in_features);
            return Err(wrong("in_features", problem));
        }
        if raw.out_features == 0 {
            return Err(wrong("out_features", "is 0, must be at least 1".to_owned()));
        }
        let features = [
            ("module_input_name", raw.module_input_name),
            ("module_output_name", raw.module_output_name),
        ];
        for (field, value) in features {
            if let Some(value) = value.filter(|value| value != "sentence_embedding") {
                let problem = format!("is `{value}`, only `sentence_embedding` is supported");
                return Err(wrong(field, problem));
            }
        }
        let class = raw.activation_function.as_deref().unwrap_or("Tanh");
        let Some(activation) = Activation::from_torch_class(class) else {
            let problem = format!(
                "`{class}` is not supported; torch's Tanh, Identity, ReLU, GELU, Sigmoid, SiLU and \
                 LeakyReLU are"
            );
            return Err(wrong("activation_function", problem));
        };
        let checkpoint = Checkpoint::from_files(files, folder)?;
        let (w, output) = (checkpoint.root().on(isa), raw.out_features);
        let linear = if raw.bias.unwrap_or(true) {
            Linear::load(&w.at("linear"), input, output)?
        } else {
            Linear::load_without_bias(&w.at("linear"), input, output)?
        };
        let residual = match raw.use_residual {
            false => Residual::None,
            true if input == output => Residual::Identity,
            true => {
                Residual::Projected(Linear::load_without_bias(&w.at("residual"), input, output)?)
            }
        };
        Ok(Self { linear, activation, residual, output })
    }

    pub(super) fn output(&self) -> usize {
        self.output
    }

    /// `x: [B, in]` → `[B, out]`
    pub(super) fn forward(&self, x: Array2<f32>) -> Array2<f32> {
        let y = self.linear.forward_activated(x.view(), self.activation);
        match &self.residual {
            Residual::None => y,
            Residual::Identity => y + x,
            Residual::Projected(linear) => y + linear.forward(x.view()),
        }
    }
}

fn gone(name: &str) -> Error {
    Error::Io { path: name.into(), source: std::io::ErrorKind::NotFound.into() }
}
