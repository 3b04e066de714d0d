//! JSON as the phone reads it: parsed by the browser, its fields asked for by name. Readers that serde makes of the same types
//! weigh a third of the phone's module, which a hall fetches over one access point. Natively, for tests, it is serde's.

#[cfg(not(target_arch = "wasm32"))]
type Value = serde_json::Value;
#[cfg(target_arch = "wasm32")]
type Value = wasm_bindgen::JsValue;

/// A value; what is not there reads as nothing.
#[derive(Clone, Debug)]
pub struct Json(Value);

impl Json {
    /// Parses a text; `None` for what is no JSON.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        #[cfg(target_arch = "wasm32")]
        let value = js_sys::JSON::parse(text);
        #[cfg(not(target_arch = "wasm32"))]
        let value = serde_json::from_str(text);
        value.ok().map(Self)
    }

    /// A field, or the item of an array by its number.
    #[must_use]
    pub fn get(&self, key: &str) -> Self {
        #[cfg(target_arch = "wasm32")]
        let value = js_sys::Reflect::get(&self.0, &Value::from_str(key)).unwrap_or(Value::UNDEFINED);
        #[cfg(not(target_arch = "wasm32"))]
        let value = match &self.0 {
            Value::Array(items) => key.parse().ok().and_then(|at: usize| items.get(at)).cloned().unwrap_or_default(),
            object => object.get(key).cloned().unwrap_or_default(),
        };
        Self(value)
    }

    /// This value, where it is there.
    #[must_use]
    pub fn known(self) -> Option<Self> {
        #[cfg(target_arch = "wasm32")]
        let is_known = !self.0.is_undefined() && !self.0.is_null();
        #[cfg(not(target_arch = "wasm32"))]
        let is_known = !self.0.is_null();
        is_known.then_some(self)
    }

    /// The number under a name.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<f64> {
        self.get(key).0.as_f64()
    }

    /// The number under a name, 0 where there is none.
    #[must_use]
    pub fn amount(&self, key: &str) -> f64 {
        self.number(key).unwrap_or_default()
    }

    /// The whole number under a name, 0 where there is none.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of numbers saturate")]
    pub fn count(&self, key: &str) -> u32 {
        self.amount(key) as u32
    }

    /// As [`count`](Self::count), for long ones.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of numbers saturate")]
    pub fn long(&self, key: &str) -> u64 {
        self.amount(key) as u64
    }

    /// The text under a name, empty where there is none.
    #[must_use]
    pub fn text(&self, key: &str) -> String {
        self.get(key).itself()
    }

    /// This value as a text, empty where it is none.
    #[must_use]
    pub fn itself(&self) -> String {
        #[cfg(target_arch = "wasm32")]
        let text = self.0.as_string();
        #[cfg(not(target_arch = "wasm32"))]
        let text = self.0.as_str().map(str::to_owned);
        text.unwrap_or_default()
    }

    /// Whether what is under a name is true.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).0.as_bool() == Some(true)
    }

    /// The items of the array under a name.
    #[must_use]
    pub fn list(&self, key: &str) -> Vec<Self> {
        let array = self.get(key);
        #[cfg(target_arch = "wasm32")]
        let length = array.count("length");
        #[cfg(not(target_arch = "wasm32"))]
        let length = array.0.as_array().map_or(0, Vec::len);
        (0..length).map(|at| array.get(&at.to_string())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_nothing() {
        let json = Json::parse(r#"{"a":1.5,"b":"x","c":[1,{"d":true}],"n":null}"#).expect("json");
        assert_eq!((json.number("a"), json.number("b"), json.count("a"), json.long("z")), (Some(1.5), None, 1, 0));
        assert_eq!((json.text("b"), json.text("a"), json.text("z")), ("x".to_owned(), String::new(), String::new()));
        assert_eq!((json.list("c").len(), json.list("c")[1].flag("d"), json.list("a").len()), (2, true, 0));
        assert!(json.get("n").known().is_none() && json.get("z").known().is_none() && json.get("a").known().is_some());
        assert!(Json::parse("{").is_none());
    }
}
