package bridge

// Pods are shared watches of single pods. Skeleton: the forward helper's.
type Pods struct{}
