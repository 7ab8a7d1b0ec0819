//! sentence-transformers' Dense module: a linear layer over the pooled vector.

use ndarray::Array2;
use serde_json::{Map, Value};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::files::{ModelFiles, is_true};
use crate::kernels::activation::Activation;
use crate::kernels::isa::Isa;
use crate::nn::{Linear, Placement};
use ndarray::Array1;

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
    Projected(Box<Linear>),
}

impl Dense {
    /// Reads `config.json` and the weights in `folder`, for an input of width `input`.
    pub(super) fn load(files: &ModelFiles, folder: &str, input: usize, isa: Isa) -> Result<Self> {
        let name = format!("{folder}config.json");
        let fields: Map<String, Value> = files.json(&name)?.ok_or_else(|| files.absent(&name))?;
        let wrong = |field: &str, problem: String| Error::Field {
            file: files.label(&name),
            field: field.to_owned(),
            problem,
        };
        let size = |field: &str| {
            let size = fields.get(field).and_then(Value::as_u64);
            size.filter(|&size| size > 0)
                .and_then(|size| usize::try_from(size).ok())
                .ok_or_else(|| wrong(field, "must be a number, at least 1".to_owned()))
        };
        let (found, output) = (size("in_features")?, size("out_features")?);
        if found != input {
            let problem = format!("is {found}, but what comes in has width {input}");
            return Err(wrong("in_features", problem));
        }
        for field in ["module_input_name", "module_output_name"] {
            let value = fields.get(field).filter(|value| !value.is_null());
            if let Some(value) = value.filter(|value| **value != "sentence_embedding") {
                let problem = format!("is {value}, only `sentence_embedding` is supported");
                return Err(wrong(field, problem));
            }
        }
        let activation = match fields.get("activation_function") {
            None => Activation::Tanh,
            // The reference runs no other package's class; it takes Tanh in its place, with a
            // warning.
            Some(class) => class
                .as_str()
                .filter(|class| class.starts_with("torch."))
                .and_then(Activation::from_torch_class)
                .ok_or_else(|| {
                    let problem = format!(
                        "{class} is not supported; torch's Tanh, Identity, ReLU, GELU, Sigmoid, SiLU and \
                         LeakyReLU are"
                    );
                    wrong("activation_function", problem)
                })?,
        };
        let has_bias = fields.get("bias").is_none_or(|bias| is_true(Some(bias)));
        let has_residual = is_true(fields.get("use_residual"));
        let checkpoint = Checkpoint::from_files(files, folder)?;
        let (w, at) = (checkpoint.root(), Placement::on(isa));
        let without_bias =
            |name: &str| Linear::with_bias(&w.at(name), input, Array1::zeros(output), &at);
        let linear = match has_bias {
            true => Linear::prepare(&w.at("linear"), (input, output), &at)?,
            false => without_bias("linear")?,
        };
        let residual = match has_residual {
            false => Residual::None,
            true if input == output => Residual::Identity,
            true => Residual::Projected(Box::new(without_bias("residual")?)),
        };
        Ok(Self { linear, activation, residual, output })
    }

    pub(super) fn output(&self) -> usize {
        self.output
    }

    /// `x: [B, in]` → `[B, out]`
    pub(super) fn forward(&self, x: Array2<f32>) -> Array2<f32> {
        let y = self.linear.forward(x.view(), self.activation);
        match &self.residual {
            Residual::None => y,
            Residual::Identity => y + x,
            Residual::Projected(linear) => y + linear.forward(x.view(), Activation::Identity),
        }
    }
}
