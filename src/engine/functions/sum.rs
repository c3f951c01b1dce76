//! `sum` that says so where its result does not fit: the stock one wraps around. It adds in a wider type, so
//! that only the end counts, whatever the order of the rows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;
use std::mem::size_of;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, Field, FieldRef, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit,
    IntervalYearMonthType, TimeUnit, UInt64Type, i256,
};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, Signature, StatisticsArgs,
    Volatility,
};
use datafusion::physical_expr::NullState;

use super::float_sum::RollingSum;
use crate::error::{Error, in_sql};
use crate::plan::checked::does_not_fit;

/// The aggregate function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CheckedSum {
    stock: Arc<AggregateUDF>,
    signature: Signature,
}

impl CheckedSum {
    /// `stock` adds the floats.
    pub fn new(stock: Arc<AggregateUDF>) -> Self {
        CheckedSum { stock, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// How values of one type are added.
trait Exact: Debug + Send + Sync + 'static {
    type In: ArrowPrimitiveType<Native: Hash + Eq> + Send;
    /// The type of the running sum.
    type Acc: ArrowPrimitiveType + Send;
    fn widen(v: <Self::In as ArrowPrimitiveType>::Native) -> <Self::Acc as ArrowPrimitiveType>::Native;
    /// `None` where it does not fit the type of the result.
    fn narrow(v: <Self::Acc as ArrowPrimitiveType>::Native, to: &DataType) -> Option<<Self::In as ArrowPrimitiveType>::Native>;
}

type In<E> = <<E as Exact>::In as ArrowPrimitiveType>::Native;
type Acc<E> = <<E as Exact>::Acc as ArrowPrimitiveType>::Native;

macro_rules! exact {
    ($($name:ident: $in:ty => $acc:ty, $widen:expr, $narrow:expr;)*) => { $(
        #[derive(Debug)]
        struct $name;
        impl Exact for $name {
            type In = $in;
            type Acc = $acc;
            fn widen(v: In<Self>) -> Acc<Self> {
                ($widen)(v)
            }
            fn narrow(v: Acc<Self>, to: &DataType) -> Option<In<Self>> {
                ($narrow)(v, to)
            }
        }
    )* };
}

fn long(v: i128, _: &DataType) -> Option<i64> {
    i64::try_from(v).ok()
}

fn digits<T: DecimalType>(v: T::Native, to: &DataType) -> Option<T::Native> {
    let (DataType::Decimal32(p, _) | DataType::Decimal64(p, _) | DataType::Decimal128(p, _) | DataType::Decimal256(p, _)) = to else {
        return None;
    };
    T::is_valid_decimal_precision(v, *p).then_some(v)
}

exact! {
    Longs: Int64Type => Decimal128Type, |v| v as i128, long;
    Unsigned: UInt64Type => Decimal128Type, |v| v as i128, |v, _: &DataType| u64::try_from(v).ok();
    Seconds: DurationSecondType => Decimal128Type, |v| v as i128, long;
    Millis: DurationMillisecondType => Decimal128Type, |v| v as i128, long;
    Micros: DurationMicrosecondType => Decimal128Type, |v| v as i128, long;
    Nanos: DurationNanosecondType => Decimal128Type, |v| v as i128, long;
    Decimals32: Decimal32Type => Decimal128Type, |v| v as i128, |v, t: &DataType| i32::try_from(v).ok().and_then(|v| digits::<Decimal32Type>(v, t));
    Decimals64: Decimal64Type => Decimal128Type, |v| v as i128, |v, t: &DataType| i64::try_from(v).ok().and_then(|v| digits::<Decimal64Type>(v, t));
    Decimals128: Decimal128Type => Decimal256Type, i256::from_i128, |v: i256, t: &DataType| v.to_i128().and_then(|v| digits::<Decimal128Type>(v, t));
    Decimals256: Decimal256Type => Decimal256Type, |v| v, digits::<Decimal256Type>;
    Months: IntervalYearMonthType => IntervalYearMonthType, |v| v, |v, _: &DataType| Some(v);
    DayTimes: IntervalDayTimeType => IntervalDayTimeType, |v| v, |v, _: &DataType| Some(v);
    Intervals: IntervalMonthDayNanoType => IntervalMonthDayNanoType, |v| v, |v, _: &DataType| Some(v);
}

/// The type of the running sum over a type of values.
fn running(input: &DataType) -> DataType {
    use DataType::*;
    match input {
        Decimal32(_, s) | Decimal64(_, s) => Decimal128(Decimal128Type::MAX_PRECISION, *s),
        Decimal128(_, s) | Decimal256(_, s) => Decimal256(Decimal256Type::MAX_PRECISION, *s),
        Interval(_) => input.clone(),
        _ => Decimal128(Decimal128Type::MAX_PRECISION, 0),
    }
}

/// Calls `$make::<kind>($arguments)` for the kind of a result's type; `None` for all other types.
macro_rules! by_kind {
    ($type:expr, $make:ident, $($argument:expr),*) => {
        match $type {
            DataType::Int64 => Some($make::<Longs>($($argument),*)),
            DataType::UInt64 => Some($make::<Unsigned>($($argument),*)),
            DataType::Duration(TimeUnit::Second) => Some($make::<Seconds>($($argument),*)),
            DataType::Duration(TimeUnit::Millisecond) => Some($make::<Millis>($($argument),*)),
            DataType::Duration(TimeUnit::Microsecond) => Some($make::<Micros>($($argument),*)),
            DataType::Duration(TimeUnit::Nanosecond) => Some($make::<Nanos>($($argument),*)),
            DataType::Decimal32(..) => Some($make::<Decimals32>($($argument),*)),
            DataType::Decimal64(..) => Some($make::<Decimals64>($($argument),*)),
            DataType::Decimal128(..) => Some($make::<Decimals128>($($argument),*)),
            DataType::Decimal256(..) => Some($make::<Decimals256>($($argument),*)),
            DataType::Interval(IntervalUnit::YearMonth) => Some($make::<Months>($($argument),*)),
            DataType::Interval(IntervalUnit::DayTime) => Some($make::<DayTimes>($($argument),*)),
            DataType::Interval(IntervalUnit::MonthDayNano) => Some($make::<Intervals>($($argument),*)),
            _ => None,
        }
    };
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        let [one] = types else {
            return Err(Error::invalid(format!("sum takes one value, not {}", types.len())).into());
        };
        // what is no number is refused with the type of the result: an error here would lose its words
        Ok(vec![addend(one).unwrap_or_else(|| one.clone())])
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        if let Some(t) = types.iter().find(|t| addend(t).is_none()) {
            return Err(super::refused("sum", t, "numbers").into());
        }
        self.stock.inner().return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        let made = match args.is_distinct {
            true => by_kind!(args.return_type(), distinct, &args),
            false => by_kind!(args.return_type(), plain, &args),
        };
        made.map_or_else(|| self.stock.inner().accumulator(args.clone()), Ok)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        match (args.return_type(), args.is_distinct) {
            (DataType::Float64, false) => Ok(Box::new(RollingSum::default())),
            (DataType::Float64, true) => Ok(super::sliding::again(Arc::clone(self.stock.inner()), &args)),
            _ => self.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        if *args.return_type() == DataType::Float64 {
            return self.stock.inner().state_fields(args);
        }
        let input = args.input_fields.first().map_or(args.return_type(), |f| f.data_type());
        Ok(vec![Arc::new(match args.is_distinct {
            true => Field::new_list(format_state_name(args.name, "sum distinct"), Field::new_list_field(input.clone(), true), false),
            false => Field::new(format_state_name(args.name, "sum"), running(input), true),
        })])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn GroupsAccumulator>> {
        by_kind!(args.return_type(), groups, &args).map_or_else(|| self.stock.inner().create_groups_accumulator(args.clone()), Ok)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.stock.documentation()
    }

    fn value_from_stats(&self, _: &StatisticsArgs) -> Option<ScalarValue> {
        None
    }
}

/// The type that values of a type are added in; `None` where they cannot be.
fn addend(t: &DataType) -> Option<DataType> {
    use DataType::*;
    Some(match t {
        Int8 | Int16 | Int32 | Int64 | Null => Int64,
        UInt8 | UInt16 | UInt32 | UInt64 => UInt64,
        Float16 | Float32 | Float64 => Float64,
        Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) | Duration(_) | Interval(_) => t.clone(),
        Dictionary(_, value) => return addend(value),
        _ => return None,
    })
}

/// What a sum calls itself in an error, and its types.
#[derive(Debug, Clone)]
struct About {
    name: String,
    input: DataType,
    result: DataType,
}

impl About {
    fn of(args: &AccumulatorArgs) -> Self {
        let input = args.expr_fields.first().map_or(args.return_type(), |f| f.data_type()).clone();
        About { name: in_sql(super::call(args.name)), input, result: args.return_type().clone() }
    }

    fn overflow(&self) -> Error {
        does_not_fit(&self.name, &self.result)
    }

    fn result<E: Exact>(&self, v: Acc<E>) -> DfResult<In<E>> {
        E::narrow(v, &self.result).ok_or_else(|| self.overflow().into())
    }
}

fn plain<E: Exact>(args: &AccumulatorArgs) -> Box<dyn Accumulator> {
    Box::new(Sum::<E> { about: About::of(args), sum: <E::Acc as ArrowPrimitiveType>::default_value(), count: 0, kind: PhantomData })
}

fn distinct<E: Exact>(args: &AccumulatorArgs) -> Box<dyn Accumulator> {
    Box::new(Distinct::<E> { about: About::of(args), seen: HashMap::new(), kind: PhantomData })
}

fn groups<E: Exact>(args: &AccumulatorArgs) -> Box<dyn GroupsAccumulator> {
    Box::new(Groups::<E> { about: About::of(args), sums: vec![], nulls: NullState::new(), kind: PhantomData })
}

/// One sum, also over a moving frame.
#[derive(Debug)]
struct Sum<E: Exact> {
    about: About,
    sum: Acc<E>,
    count: i64,
    kind: PhantomData<E>,
}

impl<E: Exact> Sum<E> {
    fn each(&mut self, values: &ArrayRef, add: impl Fn(Acc<E>, Acc<E>) -> Option<Acc<E>>) -> DfResult<i64> {
        let values = values.as_primitive::<E::In>();
        let sum = match values.null_count() {
            0 => values.values().iter().try_fold(self.sum, |sum, v| add(sum, E::widen(*v))),
            _ => values.iter().flatten().try_fold(self.sum, |sum, v| add(sum, E::widen(v))),
        };
        self.sum = sum.ok_or_else(|| self.about.overflow())?;
        Ok((values.len() - values.null_count()) as i64)
    }
}

impl<E: Exact> Accumulator for Sum<E> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.count += self.each(&values[0], |a, b| a.add_checked(b).ok())?;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.count -= self.each(&values[0], |a, b| a.sub_checked(b).ok())?;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let value = (self.count != 0).then(|| self.about.result::<E>(self.sum)).transpose()?;
        ScalarValue::new_primitive::<E::In>(value, &self.about.result)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let value = (self.count != 0).then_some(self.sum);
        Ok(vec![ScalarValue::new_primitive::<E::Acc>(value, &running(&self.about.input))?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for v in states[0].as_primitive::<E::Acc>().iter().flatten() {
            self.sum = self.sum.add_checked(v).map_err(|_| self.about.overflow())?;
            self.count += 1;
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.about.name.capacity()
    }
}

/// A sum of different values, also over a moving frame.
#[derive(Debug)]
struct Distinct<E: Exact> {
    about: About,
    /// How often each value is there.
    seen: HashMap<In<E>, i64>,
    kind: PhantomData<E>,
}

impl<E: Exact> Accumulator for Distinct<E> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        for v in values[0].as_primitive::<E::In>().iter().flatten() {
            *self.seen.entry(v).or_insert(0) += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        for v in values[0].as_primitive::<E::In>().iter().flatten() {
            if let Entry::Occupied(mut e) = self.seen.entry(v) {
                *e.get_mut() -= 1;
                if *e.get() == 0 {
                    e.remove();
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let mut sum = <E::Acc as ArrowPrimitiveType>::default_value();
        for v in self.seen.keys() {
            sum = sum.add_checked(E::widen(*v)).map_err(|_| self.about.overflow())?;
        }
        let value = (!self.seen.is_empty()).then(|| self.about.result::<E>(sum)).transpose()?;
        ScalarValue::new_primitive::<E::In>(value, &self.about.result)
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let one = |v: &In<E>| ScalarValue::new_primitive::<E::In>(Some(*v), &self.about.input);
        let values = self.seen.keys().map(one).collect::<DfResult<Vec<_>>>()?;
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.about.input))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[values])?;
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.about.name.capacity() + self.seen.capacity() * size_of::<(In<E>, i64)>()
    }
}

/// The sums of all groups.
#[derive(Debug)]
struct Groups<E: Exact> {
    about: About,
    sums: Vec<Acc<E>>,
    nulls: NullState,
    kind: PhantomData<E>,
}

impl<E: Exact> Groups<E> {
    fn add<T: ArrowPrimitiveType + Send>(
        &mut self,
        values: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
        widen: impl Fn(T::Native) -> Acc<E> + Send + Sync,
    ) -> DfResult<()> {
        self.sums.resize(total, <E::Acc as ArrowPrimitiveType>::default_value());
        let (sums, mut fits) = (&mut self.sums, true);
        self.nulls.accumulate(groups, values.as_primitive::<T>(), filter, total, |group, v| match sums[group].add_checked(widen(v)) {
            Ok(sum) => sums[group] = sum,
            Err(_) => fits = false,
        });
        if fits { Ok(()) } else { Err(self.about.overflow().into()) }
    }
}

impl<E: Exact> GroupsAccumulator for Groups<E> {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total: usize) -> DfResult<()> {
        self.add::<E::In>(&values[0], groups, filter, total, E::widen)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> DfResult<()> {
        self.add::<E::Acc>(&values[0], groups, None, total, |v| v)
    }

    fn evaluate(&mut self, emit: EmitTo) -> DfResult<ArrayRef> {
        let sums = emit.take_needed(&mut self.sums);
        let nulls = self.nulls.build(emit);
        let values = sums.into_iter().map(|v| self.about.result::<E>(v)).collect::<DfResult<Vec<_>>>()?;
        Ok(Arc::new(PrimitiveArray::<E::In>::new(values.into(), nulls).with_data_type(self.about.result.clone())))
    }

    fn state(&mut self, emit: EmitTo) -> DfResult<Vec<ArrayRef>> {
        let sums = emit.take_needed(&mut self.sums);
        let nulls = self.nulls.build(emit);
        Ok(vec![Arc::new(PrimitiveArray::<E::Acc>::new(sums.into(), nulls).with_data_type(running(&self.about.input)))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> DfResult<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<E::In>();
        let kept = filter.map(|f| {
            NullBuffer::new(match f.nulls() {
                Some(known) => f.values() & known.inner(),
                None => f.values().clone(),
            })
        });
        let wide: Vec<Acc<E>> = values.values().iter().map(|v| E::widen(*v)).collect();
        let nulls = NullBuffer::union(values.nulls(), kept.as_ref());
        Ok(vec![Arc::new(PrimitiveArray::<E::Acc>::new(wide.into(), nulls).with_data_type(running(&self.about.input)))])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<Acc<E>>() + self.nulls.size()
    }
}
