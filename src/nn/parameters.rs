//! [`Parameters`]: a tree of named arrays, and [`NamedParameters`], from which operands are
//! prepared as from a checkpoint.

use std::collections::HashMap;

use ndarray::{Array, ArrayViewD, ArrayViewMutD, CowArray, Dimension, IxDyn};

use crate::checkpoint::{Elements, Source, Tensor, Weights};
use crate::error::{Error, Result, TensorProblem};

/// A tree of `f32` arrays, each with a name: the trainable part of a model or of a block of it.
///
/// The names are those of the checkpoint, joined by dots:
/// `encoder.layer.0.intermediate.dense.bias`. Gradients and the moments of an optimiser have the
/// same type as the parameters they belong to.
///
/// ```
/// use mpnet::model::{MpnetParameters, Parameters};
///
/// # let directory = std::path::Path::new("tests/data/tiny");
/// # let config = mpnet::Config::from_json(std::fs::read(directory.join("config.json"))?, "config.json")?;
/// let checkpoint = mpnet::Checkpoint::open(directory)?;
/// let mut parameters = MpnetParameters::load(&checkpoint.encoder()?, &config)?;
/// let mut decayed = 0;
/// parameters.visit_mut("", &mut |name, mut array| {
///     if !name.ends_with("bias") && !name.contains("LayerNorm") {
///         array *= 0.99;
///         decayed += 1;
///     }
/// });
/// assert_eq!(decayed, 2 + 1 + 3 * 6 + 1); // embeddings, position bias, layers, pooler
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Parameters {
    /// Shows every array to `each`, with its name below `name`, in the order of the model.
    fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(&str, ArrayViewD<'a, f32>));

    /// As [`visit`](Self::visit), for changing the arrays.
    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(&str, ArrayViewMutD<'a, f32>));
}

impl<D: Dimension> Parameters for Array<f32, D> {
    fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(&str, ArrayViewD<'a, f32>)) {
        each(name, self.view().into_dyn());
    }

    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(&str, ArrayViewMutD<'a, f32>)) {
        each(name, self.view_mut().into_dyn());
    }
}

impl<P: Parameters> Parameters for Vec<P> {
    fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(&str, ArrayViewD<'a, f32>)) {
        for (index, parameters) in self.iter().enumerate() {
            parameters.visit(&join(name, &index.to_string()), each);
        }
    }

    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(&str, ArrayViewMutD<'a, f32>)) {
        for (index, parameters) in self.iter_mut().enumerate() {
            parameters.visit_mut(&join(name, &index.to_string()), each);
        }
    }
}

impl<P: Parameters> Parameters for Option<P> {
    fn visit<'a>(&'a self, name: &str, each: &mut dyn FnMut(&str, ArrayViewD<'a, f32>)) {
        self.iter().for_each(|parameters| parameters.visit(name, each));
    }

    fn visit_mut<'a>(&'a mut self, name: &str, each: &mut dyn FnMut(&str, ArrayViewMutD<'a, f32>)) {
        self.iter_mut().for_each(|parameters| parameters.visit_mut(name, each));
    }
}

/// `name` below `place`.
pub(crate) fn join(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

/// A struct of parameters, and the visit of its fields, each under its name in the checkpoint.
macro_rules! parameters {
    (
        $(#[$doc:meta])*
        pub struct $name:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $crate::nn::Parameters for $name {
            fn visit<'a>(
                &'a self,
                name: &str,
                each: &mut dyn FnMut(&str, ndarray::ArrayViewD<'a, f32>),
            ) {
                $(self.$field.visit(&$crate::nn::join(name, $key), each);)*
            }

            fn visit_mut<'a>(
                &'a mut self,
                name: &str,
                each: &mut dyn FnMut(&str, ndarray::ArrayViewMutD<'a, f32>),
            ) {
                $(self.$field.visit_mut(&$crate::nn::join(name, $key), each);)*
            }
        }
    };
}
pub(crate) use parameters;

/// Fills `parameters` from the tensors at `w`.
///
/// # Errors
///
/// As [`Weights::vector`].
pub(crate) fn fill(parameters: &mut impl Parameters, w: &Weights) -> Result<()> {
    let mut result = Ok(());
    parameters.visit_mut("", &mut |name, mut array| {
        let mut read = || {
            let tensor = w.find(name, array.shape())?;
            tensor.len()?;
            tensor.copy_to(array.as_slice_mut().expect("zeros are contiguous"));
            Ok(())
        };
        if result.is_ok() {
            result = read();
        }
    });
    result
}

/// The arrays of a tree of parameters by name, for everything that can be prepared from a
/// checkpoint.
///
/// ```
/// use mpnet::model::{Mpnet, MpnetParameters, NamedParameters, Placement};
///
/// # let directory = std::path::Path::new("tests/data/tiny");
/// # let config = mpnet::Config::from_json(std::fs::read(directory.join("config.json"))?, "config.json")?;
/// # let checkpoint = mpnet::Checkpoint::open(directory)?;
/// let parameters = MpnetParameters::load(&checkpoint.encoder()?, &config)?;
/// let named = NamedParameters::new(&parameters);
/// let model = Mpnet::prepare(&named.root(), &config, &Placement::detect()?)?;
/// let batch = mpnet::Batch::new(&[[0, 7, 2]], &config)?;
/// assert_eq!(model.forward(&batch), Mpnet::load(&checkpoint.encoder()?, &config)?.forward(&batch));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NamedParameters<'p> {
    arrays: HashMap<String, CowArray<'p, f32, IxDyn>>,
}

/// What errors call the place of parameters in memory.
const MEMORY: &str = "parameters in memory";

impl<'p> NamedParameters<'p> {
    /// Of all arrays in `parameters`. Nothing is copied, except arrays that are not in standard
    /// layout.
    #[must_use]
    pub fn new(parameters: &'p impl Parameters) -> Self {
        let mut arrays = HashMap::new();
        parameters.visit("", &mut |name, array| {
            let array = match array.is_standard_layout() {
                true => CowArray::from(array),
                false => CowArray::from(array.as_standard_layout().into_owned()),
            };
            arrays.insert(name.to_owned(), array);
        });
        Self { arrays }
    }

    /// The root of all names.
    #[must_use]
    pub fn root(&self) -> Weights<'_> {
        Weights::root(self)
    }

    /// The arrays, each with its name and shape, sorted by name.
    pub(crate) fn tensors(&self) -> Vec<(String, &[usize], Tensor<'_>)> {
        let mut names: Vec<&String> = self.arrays.keys().collect();
        names.sort_unstable();
        let mut tensors = Vec::with_capacity(names.len());
        for name in names {
            let array = &self.arrays[name];
            let elements = Elements::Floats(array.as_slice().expect(STANDARD));
            tensors.push((name.clone(), array.shape(), Tensor::new(name, MEMORY, elements)));
        }
        tensors
    }
}

const STANDARD: &str = "made standard";

impl Source for NamedParameters<'_> {
    fn locate(&self, name: &str, _tied: bool) -> Option<&str> {
        self.arrays.get_key_value(name).map(|(name, _)| name.as_str())
    }

    fn find(&self, name: &str, expected: &[usize]) -> Result<Tensor<'_>> {
        let (name, array) = self.arrays.get_key_value(name).ok_or_else(|| {
            let (name, file) = (name.to_owned(), MEMORY.to_owned());
            Error::Tensor { name, file, problem: TensorProblem::Missing { found: Vec::new() } }
        })?;
        let elements = Elements::Floats(array.as_slice().expect(STANDARD));
        Tensor::new(name, MEMORY, elements).checked(array.shape(), expected)
    }
}
