irdl.dialect @nccl {
  irdl.type @comm
  irdl.operation @group_start {
  }
  irdl.operation @group_end {
    %pointer = irdl.is !llvm.ptr
    irdl.operands(stream: %pointer)
  }
  irdl.operation @all_reduce {
    %communicator = irdl.base @nccl::@comm
    %pointer = irdl.is !llvm.ptr
    %i64 = irdl.is i64
    irdl.operands(comm: %communicator, send: %pointer, recv: %pointer, count: %i64, stream: %pointer)
    %f32 = irdl.is f32
    %f64 = irdl.is f64
    %element = irdl.any_of(%f32, %f64)
    %sum = irdl.is "sum"
    irdl.attributes { "datatype" = %element, "redop" = %sum }
  }
}
