package main

func Main(args []interface{}) []interface{} {
	for low, high := 0, len(args)-1; low < high; low, high = low+1, high-1 {
		args[low], args[high] = args[high], args[low]
	}
	return args
}
