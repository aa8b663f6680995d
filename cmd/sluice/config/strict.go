package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// unknownFields reports every field of a document that Config does not have, with its path. encoding/json would name the first one only,
// and without its path.
func unknownFields(document []byte) error {
	var tree any
	if err := json.Unmarshal(document, &tree); err != nil {
		return err
	}
	if _, ok := tree.(map[string]any); !ok && tree != nil {
		return errors.New("the file is no mapping of fields to values")
	}
	return errors.Join(unknownIn(tree, reflect.TypeFor[Config](), "")...)
}

func unknownIn(value any, t reflect.Type, path string) []error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var errs []error
	switch value := value.(type) {
	case []any:
		if t.Kind() != reflect.Slice {
			return nil // a value of another type: decoding says so
		}
		for i, v := range value {
			errs = append(errs, unknownIn(v, t.Elem(), fmt.Sprintf("%s[%d]", path, i))...)
		}
	case map[string]any:
		if t.Kind() != reflect.Struct {
			return nil
		}
		known := fieldsOf(t)
		for _, name := range slices.Sorted(maps.Keys(value)) {
			field, ok := known[name]
			if !ok {
				errs = append(errs, unknownField(join(path, name), known))
				continue
			}
			errs = append(errs, unknownIn(value[name], field, join(path, name))...)
		}
	}
	return errs
}

func unknownField(path string, known map[string]reflect.Type) error {
	return fmt.Errorf("%s: no such field; there are %s", path, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// fieldsOf is the type of each field of a struct, by its name in the file.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for f := range t.Fields() {
		out[f.Tag.Get("json")] = f.Type
	}
	return out
}

// Fields are the paths of all fields of the file that hold a value, such as "issuers[].url", in their order.
func Fields() []string { return fieldPaths(reflect.TypeFor[Config](), "") }

func fieldPaths(t reflect.Type, path string) []string {
	switch t.Kind() {
	case reflect.Pointer:
		return fieldPaths(t.Elem(), path)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return fieldPaths(t.Elem(), path+"[]")
		}
	case reflect.Struct:
		var out []string
		for f := range t.Fields() {
			out = append(out, fieldPaths(f.Type, join(path, f.Tag.Get("json")))...)
		}
		return out
	}
	return []string{path}
}

// typeName is what belongs into a field, in the words of the file.
func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	case reflect.Struct:
		return "a mapping of fields"
	}
	return "a text"
}
